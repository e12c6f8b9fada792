"""Watches a run in flight: where its logged losses and the law that promised it say it will end.

Not the forecasting itself (`laws.in_flight`), nor stopping (the loop does what is asked here).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.errors import RunError, TableError
from isoflop.laws.curve_fit import Curve
from isoflop.laws.family import Estimate
from isoflop.laws.forms import Array
from isoflop.laws.in_flight import watch
from isoflop.laws.load import SURFACES, load_law
from isoflop.laws.predict import Law
from isoflop.laws.schedule_terms import Schedule
from isoflop.training.forecast_recipe import ForecastConfig

_MOST_POINTS = 200
"""Losses are averaged to so many points: a forecast then takes milliseconds on any run."""
_NODES = 400
_NEAR = 0.05
"""Share of the run around an evaluation whose training losses it is compared with."""


@dataclass(frozen=True)
class Outlook:
    """What is known of the run's end."""

    row: dict[str, Any]
    """For `forecasts.jsonl`: the keys of `laws.in_flight.Watch`, and `loss` as what to expect."""
    reasons: tuple[str, ...]
    """Why going on is not worth it."""
    stop: bool
    """The recipe asks to stop for one of them."""

    @property
    def band(self) -> str:
        """`ends at 3.21 to 3.45`, for the line of progress."""
        return f"ends at {self.row['final']['low']:.3f} to {self.row['final']['high']:.3f}"


class Forecaster:
    """Forecasts one run's end from its log.

    Args:
        config: What it is watched against.
        params: Its parameters, as the law counts them.
        tokens: Its training tokens.
        steps: Its optimizer steps.
        learning_rate: Step (from 0) → learning rate.

    Raises:
        RunError: The law is not one over size and tokens.
        ArtifactError: The law's file cannot be used.
    """

    def __init__(
        self,
        config: ForecastConfig,
        *,
        params: int,
        tokens: int,
        steps: int,
        learning_rate: Callable[[int], float],
    ) -> None:
        self._config, self._steps = config, steps
        self._promise = _promise(config, params, tokens)
        self._target = config.target_loss
        if self._target is None and self._promise is not None:
            self._target = self._promise.high
        at = np.unique(np.linspace(0, steps - 1, min(_NODES, steps)).round())
        rate = np.array([learning_rate(int(step)) for step in at])
        self._schedule = Schedule(np.append(at, steps), np.append(rate, rate[-1]))

    @property
    def band(self) -> str:
        """`promised 3.21 to 3.45`, for the line of progress; empty without a law."""
        promise = self._promise
        return "" if promise is None else f"promised {promise.low:.3f} to {promise.high:.3f}"

    @property
    def moments(self) -> frozenset[int]:
        """Steps after which the end is forecast."""
        count = self._config.moments
        return frozenset(round(self._steps * (i + 1) / (count + 1)) for i in range(count))

    def __call__(self, run: Path) -> Outlook | None:
        """The outlook from a run directory's logs so far; None while they say nothing yet."""
        curve = _read(run, self._schedule)
        if curve is None:
            return None
        try:
            seen = watch(
                curve, promise=self._promise, target=self._target, level=self._config.level
            )
        except TableError:  # too few points after the warm-up, or they leave the end open
            return None
        per_percent = seen.gain_per_step * self._steps / 100
        idle = per_percent < self._config.least_gain
        reasons = seen.reasons_to_stop()
        if idle:
            reasons += (
                f"each further per cent of the run brings {per_percent:.3g} of loss, under the "
                f"bound of {self._config.least_gain:.3g}",
            )
        stop = (seen.lost and self._config.stop_when_lost) or (idle and self._config.stop_when_idle)
        return Outlook({"loss": seen.final.value, **seen.to_dict()}, reasons, stop)


def _promise(config: ForecastConfig, params: int, tokens: int) -> Estimate | None:
    if config.law is None:
        return None
    law = load_law(config.law)
    if not isinstance(law, Law):
        raise RunError(
            "this law does not foretell a loss from size and tokens",
            where=str(config.law),
            fix=f"Give one of the forms {', '.join(SURFACES)}",
        )
    foretold = law.predict(params, tokens, config.level)
    return Estimate(foretold.loss, foretold.low, foretold.high, config.level)


def _read(run: Path, schedule: Schedule) -> Curve | None:
    """The losses so far, averaged over blocks of lines, at the level of the held-out text."""
    rows = _rows(run / "metrics.jsonl")
    if len(rows) < 4:
        return None
    step = np.array([row["step"] for row in rows], dtype=np.float64)
    loss = np.array([row["loss"] for row in rows])
    # A line is the mean of the steps since the last one: it stands in their middle.
    middle = (step + np.concatenate([[0.0], step[:-1]])) / 2
    loss *= np.exp(_held_out_offset(_rows(run / "evals.jsonl"), middle, loss, schedule.end))
    blocks = np.array_split(np.arange(len(rows)), min(_MOST_POINTS, len(rows)))
    return Curve(
        "this run",
        np.array([middle[block].mean() for block in blocks]),
        np.array([loss[block].mean() for block in blocks]),
        schedule,
    )


def _held_out_offset(
    evaluations: list[dict[str, Any]], step: Array, loss: Array, end: float
) -> float:
    """ln of held-out over training loss, from the evaluations so far; 0 before the first.

    Held-out documents are other documents: a few hundred of them differ from the rest by a per
    cent or two however well they were drawn, and the target is meant on them.
    """
    found = []
    for row in evaluations:
        near = np.abs(step - row["step"]) <= _NEAR * end
        if near.any():
            found.append(np.log(row["loss"]) - np.mean(np.log(loss[near])))
    return float(np.mean(found)) if found else 0.0


def _rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()] if log.exists() else []
