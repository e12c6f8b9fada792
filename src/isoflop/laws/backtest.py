"""Scores a form on a table's own large runs; not for choosing or calibrating forms."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.fit import Objective, fit
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
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Backtest:
    """Fit the runs of least compute and score the rest.

    Args:
        holdout: Share of the runs, those of most compute, to keep out of the fit.

    Raises:
        TableError: `holdout` is not between 0 and 1, or the small runs do not determine the form.
    """
    if not 0.0 < holdout < 1.0:
        raise TableError(f"holdout must lie between 0 and 1, not {holdout:g}", fix="Try 0.2")
    order = np.argsort(table.flops, kind="stable")
    held_out = max(1, round(holdout * len(table)))
    small, large = select(table, order[:-held_out]), select(table, order[-held_out:])
    if not len(small):
        raise TableError(f"holding out {holdout:g} leaves no run to fit", where=table.name)
    law = fit(small, form=form, objective=objective, bootstrap=bootstrap, seed=seed)
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
    return Backtest(
        form=law.form,
        objective=objective,
        level=level,
        n_fit=len(small),
        n_held_out=len(large),
        reach=float(large.flops.max() / small.flops.max()),
        median_error_percent=100.0 * float(np.median(np.abs(error))),
        mean_error_percent=100.0 * float(np.mean(np.abs(error))),
        bias_percent=100.0 * float(np.mean(error)),
        median_half_width_percent=100.0 * float(np.median(width)),
        coverage=float(np.mean([p.held for p in points])),
        verdict=law.verdict,
        warnings=law.warnings,
        points=tuple(points),
    )
