"""What a run of GRPO or PPO can come to: promised before it and after a third, scored at its end.

Not for the formulas (`forecast.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.alignment.forecast import Rewards, best_of, dead_groups, frontier
from isoflop.alignment.policy_recipe import PolicyRecipe
from isoflop.alignment.rewards import correct
from isoflop.alignment.rollout import sample
from isoflop.alignment.rounds import Setting, attempts_at, round_seed, sampling_of
from isoflop.alignment.trend import bend_of, end_of_climb
from isoflop.core.artifact import read_json, write_json
from isoflop.core.ledger import LEDGER, Ledger

FORECAST = "forecast.json"
MOST_PROMPTS = 64
BETAS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
_NORMAL_90 = 1.645
_LAST_SHARE = 0.1
_RIGHT = 0.5
"""An answer that earns more passes."""
_FEWEST_ROUNDS, _FEWEST_POINTS = 9, 5
"""Runs of fewer rounds are over before anything can be told of them."""
_FARTHEST = 4.0
"""A peak farther than so many times the divergence seen is not told."""
LESS_KL = "reward less β × divergence from the reference, last tenth of the run"
END = "reward, last tenth of the run"
MOST_CHECKED = "most of an answer's being right, any round"


def foretell(recipe: PolicyRecipe, setting: Setting, out: Path) -> None:
    """Draw answers of the reference, and write the frontier and a promise; once for a run.

    The promise is that E[r] − β·KL ends between what the reference has and J*(β).
    """
    answers = recipe.train.forecast_answers
    if not answers or (out / FORECAST).exists():
        return
    rewards_PK, checked = reference_rewards(recipe, setting, answers)
    beta = recipe.kl.coef or min(BETAS)
    points = frontier(rewards_PK, sorted({*BETAS, beta}, reverse=True))
    mean_P = rewards_PK.mean(1)
    error = float(mean_P.std(ddof=1) / len(mean_P) ** 0.5) if len(mean_P) > 1 else 0.0
    best = next(point for point in points if point.beta == beta)
    if recipe.kl.target is None and not (out / LEDGER).exists():
        low = float(mean_P.mean()) - _NORMAL_90 * error
        high = max(best.value + _NORMAL_90 * best.error, low)
        Ledger(out / LEDGER).promise(
            LESS_KL,
            "reward",
            (low + high) / 2,
            low,
            high,
            0.9,
            f"between the reference and J*({beta:g}), from {rewards_PK.size} of its answers",
        )
    powers = [2**i for i in range(answers.bit_length()) if 2**i <= answers]
    group = min(recipe.rollouts.answers, answers)
    right_PK = (rewards_PK > _RIGHT).astype(np.float64)
    write_json(
        out / FORECAST,
        {
            "prompts": len(rewards_PK),
            "answers": answers,
            "reward": float(mean_P.mean()),
            "checked": checked,
            "dead_groups": dead_groups(rewards_PK, group) if group > 1 else None,
            "best_of_group": best_of(rewards_PK, group),
            "pass_at": {str(k): best_of(right_PK, k) for k in powers},
            "frontier": [asdict(point) for point in points],
        },
    )


def reference_rewards(
    recipe: PolicyRecipe, setting: Setting, answers: int
) -> tuple[Rewards, float | None]:
    """(P, K) rewards of answers that the reference draws to the first prompts of the set, and the
    share of them that the checker finds right, where it is told beside the reward."""
    questions = setting.questions[:MOST_PROMPTS]
    seed = round_seed(recipe.train.seed, 0, "forecast")
    prompts = [question.ids for question in questions]
    drawn = sample(
        setting.reference,
        prompts,
        sampling_of(recipe.rollouts),
        setting.stop_ids,
        seed=seed,
        copies=answers,
    )
    attempts = attempts_at(setting, questions, drawn.answers, seed, 0)
    missing_B = recipe.rollouts.missing_stop_penalty * (~drawn.ended_B).double()
    rewards_B = setting.reward(attempts) - missing_B
    checked = sum(correct(attempts)) / len(attempts) if setting.watched else None
    return rewards_B.view(len(questions), answers).numpy(), checked


def foretell_end(recipe: PolicyRecipe, out: Path) -> None:
    """Promise, from the rounds so far, what the last tenth of a run will earn; once for a run.

    Where rewards stand for what a checker could tell (`watched`), the most that the checker will
    find right is promised too, if it already rises less than the divergence.
    """
    ledger, told, total = Ledger(out / LEDGER), out / FORECAST, recipe.train.rounds
    if not told.exists() or total < _FEWEST_ROUNDS:
        return
    rows = by_round(out)
    made = ledger.read() if ledger.path.exists() else []
    if not rows or any(promise.quantity == END for promise in made):
        return
    forecast = read_json(told)
    rounds, reward, spread = (
        np.array([row[key] for row in rows]) for key in ("round", "reward", "reward_std")
    )
    anchors = forecast["reward"], forecast["best_of_group"]
    errors = spread / recipe.rollouts.prompts**0.5
    end = end_of_climb(rounds, reward, errors, anchors, total)
    basis = f"a sigmoid in log(round) through {len(rows)} of {total} rounds"
    ledger.promise(END, "reward", end.value, end.low, end.high, 0.9, basis)
    if "checked" not in rows[0] or not forecast.get("checked"):
        return
    kl, checked = (np.array([row[key] for row in rows]) for key in ("kl", "checked"))
    if np.count_nonzero(kl > 0) < _FEWEST_POINTS:
        return
    bend = bend_of(kl, checked, forecast["checked"])
    if bend.peak is not None and bend.peak <= _FARTHEST * kl.max():
        most, off = bend.at(bend.peak), _NORMAL_90 * bend.error
        basis = f"d·(α − β·log d) through {len(rows)} rounds, highest at a KL of {bend.peak:.2g}"
        ledger.promise(MOST_CHECKED, "share right", most, most - off, most + off, 0.9, basis)


def by_round(out: Path) -> list[dict[str, Any]]:
    """The last metrics of each round so far."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return list({row["round"]: row for row in map(json.loads, lines)}.values())


def settle(out: Path) -> None:
    """Score the promises by the run's rounds, where they are still open."""
    if not (out / LEDGER).exists():
        return
    ledger, rows = Ledger(out / LEDGER), by_round(out)
    last = rows[-max(1, round(_LAST_SHARE * len(rows))) :]
    for promise in ledger.read():
        if promise.settled:
            continue
        if promise.quantity == MOST_CHECKED:
            outcome = max(row["checked"] for row in rows)
        elif promise.quantity == END:
            outcome = np.mean([row["reward"] for row in last])
        else:
            outcome = np.mean([row["reward"] - row["kl_coef"] * row["kl"] for row in last])
        ledger.settle(promise.id, float(outcome))
