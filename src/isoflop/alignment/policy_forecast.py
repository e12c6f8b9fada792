"""What a run of GRPO or PPO can come to, written down before it and scored after it.

Not for the formulas (`forecast.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.alignment.forecast import Rewards, dead_groups, frontier, pass_at_k
from isoflop.alignment.policy_recipe import PolicyRecipe
from isoflop.alignment.rewards import Attempt
from isoflop.alignment.rollout import sample
from isoflop.alignment.rounds import Setting, round_seed, sampling_of
from isoflop.core.artifact import write_json
from isoflop.core.ledger import Ledger

FORECAST, LEDGER = "forecast.json", "ledger.jsonl"
MOST_PROMPTS = 64
BETAS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
_NORMAL_90 = 1.645
_LAST_SHARE = 0.1


def foretell(recipe: PolicyRecipe, setting: Setting, out: Path) -> None:
    """Draw answers of the reference, and write the frontier and a promise; once for a run.

    The promise is that E[r] − β·KL ends between what the reference has and J*(β).
    """
    answers = recipe.train.forecast_answers
    if not answers or (out / FORECAST).exists():
        return
    rewards_PK = reference_rewards(recipe, setting, answers)
    beta = recipe.kl.coef or min(BETAS)
    points = frontier(rewards_PK, sorted({*BETAS, beta}, reverse=True))
    mean_P = rewards_PK.mean(1)
    error = float(mean_P.std(ddof=1) / len(mean_P) ** 0.5) if len(mean_P) > 1 else 0.0
    best = next(point for point in points if point.beta == beta)
    if recipe.kl.target is None and not (out / LEDGER).exists():
        low = float(mean_P.mean()) - _NORMAL_90 * error
        high = max(best.value + _NORMAL_90 * best.error, low)
        Ledger(out / LEDGER).promise(
            "reward less β × divergence from the reference, last tenth of the run",
            "reward",
            (low + high) / 2,
            low,
            high,
            0.9,
            f"between the reference and J*({beta:g}), from {rewards_PK.size} of its answers",
        )
    powers = [2**i for i in range(answers.bit_length()) if 2**i <= answers]
    group = min(recipe.rollouts.answers, answers)
    write_json(
        out / FORECAST,
        {
            "prompts": len(rewards_PK),
            "answers": answers,
            "reward": float(mean_P.mean()),
            "dead_groups": dead_groups(rewards_PK, group) if group > 1 else None,
            "pass_at": {str(k): pass_at_k(rewards_PK, k) for k in powers},
            "frontier": [asdict(point) for point in points],
        },
    )


def reference_rewards(recipe: PolicyRecipe, setting: Setting, answers: int) -> Rewards:
    """(P, K) rewards of answers that the reference draws to the first prompts of the set."""
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
    attempts = [
        Attempt(questions[i // answers].row, each, setting.decode(each.ids))
        for i, each in enumerate(drawn.answers)
    ]
    missing_B = recipe.rollouts.missing_stop_penalty * (~drawn.ended_B).double()
    rewards_B = setting.reward(attempts) - missing_B
    found: Rewards = rewards_B.view(len(questions), answers).numpy()
    return found


def settle(out: Path) -> None:
    """Score the promise by the run's last rounds, if it is still open."""
    if not (out / LEDGER).exists():
        return
    ledger = Ledger(out / LEDGER)
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]
    last = rows[-max(1, round(_LAST_SHARE * len(rows))) :]
    outcome = float(np.mean([row["reward"] - row["kl_coef"] * row["kl"] for row in last]))
    for promise in ledger.read():
        if not promise.settled:
            ledger.settle(promise.id, outcome)
