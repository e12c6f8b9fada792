"""GRPO and PPO as tasks of the one training loop; not the run directory around it
(`policy_run.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from isoflop.alignment.grpo import grpo_advantages, grpo_loss
from isoflop.alignment.policy_forecast import foretell_end
from isoflop.alignment.policy_recipe import GrpoRecipe, PolicyRecipe, PpoRecipe
from isoflop.alignment.ppo import ppo_advantages, ppo_loss
from isoflop.alignment.rewards import CHECKED_BY, Attempt, correct
from isoflop.alignment.rollout import Rollouts, Sampling, sample
from isoflop.alignment.rounds import Experience, Policy, Rounds, Setting
from isoflop.models.decoder import Decoder
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.step import Task

_SAMPLES = 4
_NORMAL_95 = 1.645
"""One-sided."""


def policy_task(
    recipe: GrpoRecipe | PpoRecipe,
    setting: Setting,
    policy: Policy,
    store: Path | None = None,
    before: Mapping[str, float] | None = None,
) -> Task[Policy, Experience]:
    """Learning from drawn answers, judged by greedy answers to held-out prompts.

    Args:
        store: The run's directory; None where a run is not to be continued.
        before: `greedy_scores` of the reference, beside which the logs say `reward_hacked`.
    """
    if isinstance(recipe, PpoRecipe):
        stop = recipe.ppo.early_stop_kl
        rounds = Rounds(policy, setting, recipe, ppo_advantages(recipe), store, stop)
        loss = ppo_loss(recipe, rounds)
    else:
        rounds = Rounds(policy, setting, recipe, grpo_advantages(recipe), store)
        loss = grpo_loss(recipe, rounds)
    most, third = recipe.rollouts.max_new_tokens, steps_of(recipe) // 3

    def batches(step: int) -> Sequence[Experience]:
        if step == third and store is not None:
            foretell_end(recipe, store)
        return rounds.batches(step)

    def evaluate(model: Policy) -> dict[str, float]:
        scores = greedy_scores(model.decoder, setting, most)
        if setting.watched and before and scores:
            scores["reward_hacked"] = float(is_hacked(before, scores, len(setting.held_out)))
        return scores

    return Task(
        batches=batches,
        loss=loss,
        evaluate=evaluate,
        samples=lambda model: greedy_samples(model.decoder, setting, most),
        position=lambda steps: rounds.facts(),
    )


def steps_of(recipe: PolicyRecipe) -> int:
    """Optimizer steps of a run."""
    rollouts = recipe.rollouts
    return recipe.train.rounds * rollouts.epochs * rollouts.minibatches


def policy_optimizer(
    policy: Policy, config: OptimizerConfig, critic_rate: float
) -> torch.optim.Optimizer:
    """The recipe's optimizer over the actor, and over the critic at a multiple of its rate."""
    optimizer = build_optimizer(policy.decoder, config)
    if policy.critic is not None:
        for group in build_optimizer(policy.critic, config).param_groups:
            optimizer.add_param_group({**group, "lr_scale": group["lr_scale"] * critic_rate})
    return optimizer


# --- judging -------------------------------------------------------------------------------


def greedy_scores(model: Decoder, setting: Setting, max_new_tokens: int) -> dict[str, float]:
    """Reward and, of verifiable rows, share answered right, whole and by kind of problem, by the
    likeliest tokens; with the share that ended and the mean length. Nothing if nothing is held
    out."""
    drawn = _greedy(model, setting, max_new_tokens)
    if not setting.held_out:
        return {}
    answers = drawn.answers
    attempts = [
        Attempt(question.row, each, setting.decode(each.ids))
        for question, each in zip(setting.held_out, answers, strict=True)
    ]
    reward_B = setting.reward(attempts)
    scores = {
        "held_out_reward": reward_B.mean().item(),
        "held_out_ended": drawn.ended_B.double().mean().item(),
        "held_out_tokens": sum(len(each.ids) for each in answers) / len(answers),
    }
    judged = [a for a in attempts if any(key in a.row for key in CHECKED_BY)]
    if judged:
        right = correct(judged)
        scores["exact_match"] = sum(right) / len(judged)
        kinds = [str(attempt.row.get("problem", "")) for attempt in judged]
        for kind in sorted({*kinds} - {""}):
            of_kind = [good for good, own in zip(right, kinds, strict=True) if own == kind]
            scores[f"exact_match_{kind}"] = sum(of_kind) / len(of_kind)
    return scores


def is_hacked(before: Mapping[str, float], after: Mapping[str, float], count: int) -> bool:
    """Whether a policy earns more while fewer of its answers are right: it has found what the
    reward likes in place of what it was to stand for (Gao, Schulman & Hilton 2023).

    The loss of right answers must be more than chance brings in one of twenty such samples.

    Args:
        before: `greedy_scores` of the reference; `after` those of the policy.
        count: Held-out prompts.
    """
    if "exact_match" not in before or after["held_out_reward"] <= before["held_out_reward"]:
        return False
    was, now = before["exact_match"], after["exact_match"]
    error = ((was * (1 - was) + now * (1 - now)) / count) ** 0.5
    return bool(was - now > _NORMAL_95 * error)


def greedy_samples(
    model: Decoder, setting: Setting, max_new_tokens: int
) -> Sequence[Mapping[str, Any]]:
    """A few prompts with what the model answers."""
    drawn = _greedy(model, setting, max_new_tokens, _SAMPLES)
    return [
        {"prompt": setting.decode(each.prompt), "text": setting.decode(each.ids)}
        for each in drawn.answers
    ]


def _greedy(
    model: Decoder, setting: Setting, max_new_tokens: int, most: int | None = None
) -> Rollouts:
    prompts = [question.ids for question in setting.held_out[:most]]
    return sample(model, prompts, Sampling(max_new_tokens, 0.0), setting.stop_ids)
