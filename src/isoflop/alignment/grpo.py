"""Group-relative policy optimisation: advantages and loss of GRPO, RLOO and their repairs.

Not for rounds (`rounds.py`), for the run around them (`policy_run.py`) nor for the formulas
(`policy.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from isoflop.alignment.answers import answer_logprobs
from isoflop.alignment.policy import (
    Clipping,
    group_advantages,
    k1,
    k2,
    k3,
    leave_one_out_advantages,
    policy_loss,
)
from isoflop.alignment.policy_recipe import GrpoRecipe, KlForm, PolicyRecipe
from isoflop.alignment.rounds import Drawn, Experience, Policy, Rounds


def grpo_advantages(recipe: GrpoRecipe) -> Callable[[Policy, Drawn], Experience]:
    """Rewards against those of the other answers to the same prompt, the same for all tokens of
    an answer; with the divergence of the whole answer in the reward where the recipe has it so."""
    config = recipe.grpo

    def advantages(policy: Policy, drawn: Drawn) -> Experience:
        worth_B = drawn.reward_B
        if recipe.kl.form == "reverse-in-reward":
            worth_B = worth_B - drawn.kl_coef * drawn.divergence_BA().double().sum(-1)
        worth_PG = worth_B.view(-1, recipe.rollouts.answers)
        if config.baseline == "leave-one-out":
            gain_PG = leave_one_out_advantages(worth_PG)
        else:
            gain_PG = group_advantages(worth_PG, config.divide_by_std)
        gain_B1 = gain_PG.flatten()[:, None].to(drawn.sampler_BA.dtype)
        return experience(drawn, torch.where(drawn.rows.mask_BA, gain_B1, 0.0))

    return advantages


def experience(drawn: Drawn, advantages_BA: Tensor) -> Experience:
    """What is learnt from judged answers with these advantages."""
    return Experience(
        drawn.rows,
        drawn.sampler_BA,
        advantages_BA,
        drawn.kl_coef,
        drawn.old_BA,
        drawn.reference_BA,
        facts=drawn.facts,
    )


def grpo_loss(recipe: GrpoRecipe, rounds: Rounds) -> Callable[[Policy, Experience], Tensor]:
    """The clipped policy gradient, summed over tokens: no answer is divided by its own length."""
    clipping = Clipping(recipe.grpo.clip_low, recipe.grpo.clip_high)

    def loss(policy: Policy, batch: Experience) -> Tensor:
        heat = recipe.rollouts.temperature
        logprobs_BA = answer_logprobs(policy.decoder, batch.rows, heat)
        return actor_loss(logprobs_BA, batch, recipe, clipping, rounds)

    return loss


def actor_loss(
    logprobs_BA: Tensor,
    batch: Experience,
    recipe: PolicyRecipe,
    clipping: Clipping,
    rounds: Rounds,
    **facts: float,
) -> Tensor:
    """Policy gradient and the pull towards the reference, summed; told to the logs.

    Args:
        facts: What else the logs say of this micro-batch.
    """
    mask_BA = batch.rows.mask_BA
    old_BA = logprobs_BA.detach() if batch.old_BA is None else batch.old_BA
    most = recipe.rollouts.most_correction
    found = policy_loss(
        logprobs_BA,
        old_BA,
        batch.advantages_BA,
        mask_BA,
        clipping,
        None if most is None else batch.sampler_BA,
        most or 1.0,
    )
    off = (old_BA - batch.sampler_BA)[mask_BA].abs()
    rounds.note(
        batch.n_valid,
        found.approximate_kl,
        clipped=found.clipped,
        sampler_mismatch=off.double().mean().item(),
        **facts,
    )
    if batch.reference_BA is None or recipe.kl.form == "reverse-in-reward":
        return found.loss_sum
    pull = divergence_loss(recipe.kl.form, logprobs_BA, replace(batch, old_BA=old_BA))
    return found.loss_sum + batch.kl_coef * pull


def divergence_loss(form: KlForm, logprobs_BA: Tensor, batch: Experience) -> Tensor:
    """The divergence from the reference as a loss, summed over answers.

    The reverse forms take whole answers: of single tokens they would leave out that a token also
    decides what comes after it, and lead elsewhere than to π*. The variance of `reverse-k3` grows
    with the exponential of an answer's divergence.

    Raises:
        ValueError: There is no reference, or the form belongs in the reward.
    """
    reference_BA, old_BA = batch.reference_BA, batch.old_BA
    if reference_BA is None or old_BA is None:
        raise ValueError("a divergence needs the log-probabilities of two policies")
    whole_B, reference_B = logprobs_BA.sum(-1), reference_BA.sum(-1)
    ratio_B = k1(whole_B, old_BA.sum(-1)).exp()
    if form == "reverse-k2":
        return (ratio_B.detach() * k2(whole_B, reference_B)).sum()
    if form == "reverse-k3":
        return (ratio_B * k3(whole_B, reference_B)).sum()
    if form == "forward-k3":
        return k3(logprobs_BA, reference_BA)[batch.rows.mask_BA].sum()
    raise ValueError(f"{form} is no loss")
