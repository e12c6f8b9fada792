"""What a run directory foretells of its own end, for the report; not for watching while it trains.

The schedule comes from the run's `config.json`, so that a run in flight is known to its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.artifact import read_json
from isoflop.core.errors import IsoflopError
from isoflop.laws.curve_fit import Curve
from isoflop.laws.family import Estimate
from isoflop.laws.schedule_terms import Schedule
from isoflop.reporting.law_data import fan_of
from isoflop.reporting.law_records import Fan
from isoflop.reporting.records import Verdict
from isoflop.training.schedules import learning_rate_factor

_MOST = 2
_NODES = 256
_LATEST_START = 0.1
"""Share of a run by which its curve has to begin: one that branched from a trunk shows its end."""


def flights(
    runs: Sequence[tuple[Path, bool]],
    losses: Mapping[Path, Mapping[float, float]],
    verdict: Verdict | None,
    level: float,
) -> tuple[Fan, ...]:
    """What the longest runs foretold of their ends, unfinished ones and the target first.

    Args:
        runs: Run directories and whether each is the target.
        losses: Run directory → logged losses by step.
        verdict: The promise of the target, if there was one.

    A run whose curve says nothing yet, or whose configuration is another program's, has none.
    """
    curves = [
        (curve, target)
        for path, target in runs
        if (curve := _curve(path, losses.get(path, {}))) is not None
    ]
    curves.sort(key=lambda pair: (_ended(pair[0]), not pair[1], -pair[0].schedule.end))
    found = []
    for curve, target in curves[:_MOST]:
        promise = None
        if target and verdict is not None:
            promise = Estimate(verdict.value, verdict.low, verdict.high, verdict.level)
        try:
            found.append(fan_of(curve, promise=promise, level=level))
        except IsoflopError:  # too early, or the loss rises
            continue
    return tuple(found)


def _ended(curve: Curve) -> bool:
    return bool(curve.step[-1] >= 0.9999 * curve.schedule.end)


def _curve(run: Path, losses: Mapping[float, float]) -> Curve | None:
    """The logged losses with the whole schedule; None where either is not there."""
    config = run / "config.json"
    if len(losses) < 2 or not config.is_file():
        return None
    schedule = _schedule(read_json(config))
    steps = sorted(losses)
    if schedule is None or steps[0] > _LATEST_START * schedule.end:
        return None
    name = run.resolve().name
    return Curve(name, np.array(steps), np.array([losses[s] for s in steps]), schedule)


def _schedule(config: Any) -> Schedule | None:
    """The learning rate over the steps of a recipe, (at most `_NODES` of them)."""
    try:
        recipe = config["recipe"]
        optimizer, train = recipe["optimizer"], recipe["train"]
        batch, total = int(train["global_batch_tokens"]), int(train["tokens"])
        steps = total // batch
        at = np.unique(np.linspace(0, steps, min(_NODES, steps + 1)).round())
        rates = [
            optimizer["learning_rate"]
            * learning_rate_factor(
                int(step) * batch,
                total_tokens=steps * batch,
                warmup_tokens=optimizer["warmup_tokens"],
                schedule=optimizer["schedule"],
                decay_fraction=optimizer["decay_fraction"],
                final_fraction=optimizer["final_fraction"],
            )
            for step in at
        ]
        return Schedule(at, np.array(rates))
    except (KeyError, TypeError, ValueError, IsoflopError):  # not a pre-training run of ours
        return None
