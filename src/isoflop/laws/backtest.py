"""Scores a form on a table's own large runs; not for choosing or calibrating forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.fit import Objective, fit
from isoflop.laws.forms import Array
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Law
from isoflop.laws.records import RunTable, select


@dataclass(frozen=True)
class Scored:
    """One held-out run beside its forecast."""

    run_id: str
    params: float
    tokens: float
    flops: float
    loss: float
    predicted: float
    low: float
    high: float
    held: bool
    """Whether the measured loss lies between low and high."""


@dataclass(frozen=True)
class Backtest:
    """How well a law fitted to the small runs foretold the large ones."""

    form: str
    objective: str
    level: float
    n_fit: int
    n_held_out: int
    reach: float
    """Compute of the largest held-out run over that of the largest fitted one."""
    median_error_percent: float
    """Median of |predicted / loss - 1| over the held-out runs."""
    mean_error_percent: float
    bias_percent: float
    """Mean of predicted / loss - 1: positive when the forecasts are too high."""
    median_half_width_percent: float
    interval_score_percent: float
    """Mean of width + 2/alpha · miss over the loss (Gneiting and Raftery 2007, eq. 43); lower is
    better."""
    coverage: float
    """Share of the held-out runs inside their interval; to be compared with `level`."""
    verdict: str
    """Of the law fitted to the small runs."""
    warnings: tuple[str, ...]
    points: tuple[Scored, ...]

    def to_dict(self) -> dict[str, Any]:
        """The backtest document of the command line."""
        return asdict(self)


def backtest(
    table: RunTable,
    holdout: float = 0.2,
    form: str = "chinchilla",
    objective: Objective = "huber",
    *,
    cut: float | None = None,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Backtest:
    """Fit the runs of least compute and score the forecasts of the rest.

    Args:
        holdout: Share of the runs, those of most compute, to hold out; at least one is.
        form: As in `fit`.
        objective: As in `fit`.
        cut: Hold out every run of more than the largest compute / `cut` instead; overrides
            `holdout`. Compute is 6·params·tokens, as in every forecast.
        level: Of the intervals.
        bootstrap: As in `fit`.
        seed: As in `fit`.

    Raises:
        TableError: `holdout` or `cut` is impossible or leaves too few runs; or what `fit` raises.
    """
    small, large = split(table, holdout, cut)
    law = fit(small, form=form, objective=objective, bootstrap=bootstrap, seed=seed)
    return score(law, large, level, float(compute(small).max()))


def compute(table: RunTable) -> Array:
    """6·params·tokens of each run, (R,)."""
    return np.asarray(FLOPS_PER_PARAMETER_TOKEN * table.params * table.tokens)


def split(
    table: RunTable, holdout: float = 0.2, cut: float | None = None
) -> tuple[RunTable, RunTable]:
    """The runs to fit and those to foretell; see `backtest`.

    Raises:
        TableError: `holdout` or `cut` is impossible, or leaves no run to fit.
    """
    flops = compute(table)
    if cut is not None:
        if not cut > 1.0:
            raise TableError(f"cut must be above 1, not {cut:g}", fix="Try 10")
        small = flops <= flops.max() / cut
        if not small.any():
            raise TableError(
                f"no run has less than 1/{cut:g} of the largest compute", where=table.name
            )
        return select(table, small), select(table, ~small)
    if not 0.0 < holdout < 1.0:
        raise TableError(f"holdout must lie between 0 and 1, not {holdout:g}", fix="Try 0.2")
    order = np.argsort(flops, kind="stable")
    held_out = max(1, round(holdout * len(table)))
    if held_out == len(table):
        raise TableError(f"holding out {holdout:g} leaves no run to fit", where=table.name)
    return select(table, order[:-held_out]), select(table, order[-held_out:])


def compare(
    table: RunTable,
    forms: Sequence[str] = ("chinchilla", "gamma", "kaplan-nd", "auto"),
    cuts: Sequence[float] = (3.0, 10.0),
    *,
    level: float = 0.9,
    bootstrap: int = 300,
    seed: int = 0,
) -> tuple[Backtest, ...]:
    """The forms side by side, by roll-out: every form at every cut that leaves enough runs.

    Raises:
        TableError: No cut leaves enough runs for any form.
    """
    found = []
    problems = []
    for cut in cuts:
        for form in forms:
            try:
                found.append(
                    backtest(table, form=form, cut=cut, level=level, bootstrap=bootstrap, seed=seed)
                )
            except TableError as error:
                problems.append(f"{form} at 1/{cut:g}: {error.what}")
    if not found:
        raise TableError(
            f"no cut leaves enough runs; {problems[0]}" if problems else "no form was named",
            where=table.name,
            fix="Compare forms on a table of at least three sizes and three horizons below the cut",
        )
    return tuple(found)


def score(law: Law, large: RunTable, level: float, largest_fitted: float) -> Backtest:
    """How well `law` foretells the runs of `large`.

    Args:
        largest_fitted: Compute of the largest run behind the law.
    """
    points = []
    for i in range(len(large)):
        promise = law.predict(float(large.params[i]), float(large.tokens[i]), level)
        loss = float(large.loss[i])
        points.append(
            Scored(
                large.run_id[i],
                float(large.params[i]),
                float(large.tokens[i]),
                float(large.flops[i]),
                loss,
                promise.loss,
                promise.low,
                promise.high,
                promise.low <= loss <= promise.high,
            )
        )
    error = np.array([p.predicted / p.loss - 1.0 for p in points])
    width = np.array([(p.high - p.low) / 2.0 / p.predicted for p in points])
    scores = np.array(
        [
            (p.high - p.low + 2.0 / (1.0 - level) * max(p.low - p.loss, p.loss - p.high, 0.0))
            / p.loss
            for p in points
        ]
    )
    return Backtest(
        form=law.form,
        objective=law.objective,
        level=level,
        n_fit=law.n_runs,
        n_held_out=len(large),
        reach=float(compute(large).max() / largest_fitted),
        median_error_percent=100.0 * float(np.median(np.abs(error))),
        mean_error_percent=100.0 * float(np.mean(np.abs(error))),
        bias_percent=100.0 * float(np.mean(error)),
        median_half_width_percent=100.0 * float(np.median(width)),
        interval_score_percent=100.0 * float(np.mean(scores)),
        coverage=float(np.mean([p.held for p in points])),
        verdict=law.verdict,
        warnings=law.warnings,
        points=tuple(points),
    )
