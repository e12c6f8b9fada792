"""Proximal policy optimisation: advantages by a critic, and the loss of actor and critic.

Not for rounds (`rounds.py`), for the run around them (`policy_run.py`) nor for the formulas
(`policy.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from isoflop.alignment.answers import by_length, score_answers
from isoflop.alignment.grpo import actor_loss, experience
from isoflop.alignment.policy import Clipping, gae, value_loss, whiten
from isoflop.alignment.policy_recipe import PpoRecipe
from isoflop.alignment.reward_model import RewardModel
from isoflop.alignment.rounds import Drawn, Experience, Policy, Rounds


def ppo_advantages(recipe: PpoRecipe) -> Callable[[Policy, Drawn], Experience]:
    """Generalised advantage estimates; the reward comes with an answer's last token, the
    divergence, where the recipe has it in the reward, with each."""
    config, size = recipe.ppo, recipe.train.micro_batch_answers

    def advantages(policy: Policy, drawn: Drawn) -> Experience:
        rows = drawn.rows
        rewards_BA = torch.zeros_like(drawn.sampler_BA)
        if recipe.kl.form == "reverse-in-reward":
            rewards_BA -= drawn.kl_coef * drawn.divergence_BA()
        last_B = rows.lengths_B - 1
        rewards_BA[torch.arange(len(rows)), last_B] += drawn.reward_B.to(rewards_BA.dtype)
        values_BA = torch.zeros_like(rewards_BA)
        with torch.no_grad():
            for part in by_length(rows, size):
                found_BA = critic_of(policy).values(rows.take(part))
                values_BA[part, : found_BA.shape[1]] = found_BA
        gain_BA, returns_BA = gae(rewards_BA, values_BA, rows.mask_BA, config.gamma, config.lam)
        error = (returns_BA - values_BA)[rows.mask_BA].square().mean()
        spread = returns_BA[rows.mask_BA].var(unbiased=False)
        drawn.facts["value_explained"] = 1 - (error / spread.clamp_min(1e-12)).item()
        if config.whiten:
            gain_BA = whiten(gain_BA, rows.mask_BA)
        return replace(experience(drawn, gain_BA), values_BA=values_BA, returns_BA=returns_BA)

    return advantages


def ppo_loss(recipe: PpoRecipe, rounds: Rounds) -> Callable[[Policy, Experience], Tensor]:
    """The clipped policy gradient, the critic's squared error, and the entropy that is rewarded,
    summed over tokens.

    Raises:
        ValueError: The batch was not made by `ppo_advantages`.
    """
    config = recipe.ppo
    clipping = Clipping(config.clip, config.clip)

    def loss(policy: Policy, batch: Experience) -> Tensor:
        if batch.values_BA is None or batch.returns_BA is None:
            raise ValueError("these answers have no values")
        rows = batch.rows
        scored = score_answers(
            policy.decoder, rows, recipe.rollouts.temperature, config.entropy_coef > 0
        )
        error = value_loss(
            critic_of(policy).values(rows),
            batch.values_BA,
            batch.returns_BA,
            rows.mask_BA,
            config.value_clip,
        )
        facts = {"value_loss": error.item() / batch.n_valid}
        total = config.value_coef * error
        if scored.entropy_BA is not None:
            entropy = scored.entropy_BA.sum()
            facts["entropy"] = entropy.item() / batch.n_valid
            total = total - config.entropy_coef * entropy
        return total + actor_loss(scored.logprobs_BA, batch, recipe, clipping, rounds, **facts)

    return loss


def critic_of(policy: Policy) -> RewardModel:
    """The policy's critic.

    Raises:
        ValueError: It has none.
    """
    if policy.critic is None:
        raise ValueError("this policy has no critic")
    return policy.critic
