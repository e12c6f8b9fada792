"""A law.json turned into lines to draw: the law per size, the band to the target, the residuals.

Not for fitting: it asks `isoflop.laws` and rounds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from isoflop.laws import predict
from isoflop.laws.load import load_law
from isoflop.reporting import law_data
from isoflop.reporting.charts import MOST_SIZES, few_of
from isoflop.reporting.law_records import LawFigures
from isoflop.reporting.law_trends import figures_of
from isoflop.reporting.records import Curve, Law, Parameter, Rung, SizeFit, Target

if TYPE_CHECKING:
    from isoflop.laws.load import FamilyLaw

_POINTS = 32
_ENDLESS = 1e60
"""Tokens at which the data term of any law has vanished."""


@dataclass(frozen=True)
class Foretold:
    """What a law says of everything in a report."""

    law: Law
    rungs: tuple[Rung, ...]
    curves: tuple[Curve, ...]


def foretell(
    path: Path,
    rungs: tuple[Rung, ...],
    curves: tuple[Curve, ...],
    target: Target | None,
    level: float,
) -> Foretold:
    """Read a law and add its predictions to the rungs and its floors to the curves.

    Args:
        level: Probability of the band around the way to the target.

    Raises:
        ArtifactError: The law is missing or damaged.
    """
    law = load_law(path)
    if not isinstance(law, predict.Law):
        return Foretold(_described(law, figures_of(law, rungs, level=level)), rungs, curves)
    return Foretold(
        _drawn(law, rungs, target, level),
        tuple(replace(r, predicted=law.predict(r.params, r.tokens).loss) for r in rungs),
        tuple(replace(c, floor=_floor(law, c.params)) for c in curves),
    )


def _floor(law: predict.Law, params: float | None) -> float | None:
    return None if params is None else law.predict(params, _ENDLESS).loss


def _described(law: FamilyLaw | predict.Law, figures: LawFigures) -> Law:
    """What a law is, and its own figures; no rung is foretold."""
    if isinstance(law, predict.Law):
        noise = {
            "run_to_run": law.noise.run_to_run,
            "degrees_of_freedom": law.noise.degrees,
            "drift": law.noise.drift,
        }
    else:
        noise = {k: v for k, v in law.noise.items() if k in ("run_to_run", "drift")}
    return Law(
        form=law.form,
        formula=law.formula,
        parameters=tuple(
            Parameter(name, value, law.stderr.get(name)) for name, value in law.parameters.items()
        ),
        objective=law.objective,
        n_runs=law.n_runs,
        domain=dict(law.domain),
        noise=noise,
        warnings=law.warnings,
        verdict=law.verdict,
        figures=figures,
    )


def _drawn(law: predict.Law, rungs: Sequence[Rung], target: Target | None, level: float) -> Law:
    return replace(
        _described(law, law_data.surface_figures(law, rungs, level)),
        fits=_size_fits(law, rungs),
        path=_way_to_target(law, rungs, target, level) if target and rungs else (),
        path_level=level,
    )


def _size_fits(law: predict.Law, rungs: Sequence[Rung]) -> tuple[SizeFit, ...]:
    """The law along growing tokens, for each size of the ladder (of very many, for some)."""
    fits = []
    for size in few_of(sorted({r.params for r in rungs}), MOST_SIZES):
        tokens = [r.tokens for r in rungs if r.params == size]
        span = np.geomspace(min(tokens) / 1.25, max(tokens) * 1.25, _POINTS).tolist()
        cost = _flops_per_product(rungs, size)
        points = tuple((cost * size * d, law.predict(size, d).loss) for d in span)
        fits.append(SizeFit(size, points))
    return tuple(fits)


def _way_to_target(
    law: predict.Law, rungs: Sequence[Rung], target: Target, level: float
) -> tuple[tuple[float, float, float, float], ...]:
    """(flops, loss, low, high) of runs with the target's tokens per parameter, up to the target."""
    sizes = sorted({r.params for r in rungs} | {target.params})
    costs = [
        target.flops / (target.params * target.tokens)
        if size == target.params
        else _flops_per_product(rungs, size)
        for size in sizes
    ]
    ratio = target.tokens / target.params
    least = min(r.flops for r in rungs)
    way = []
    for size in np.geomspace(min(sizes) / 3, target.params, _POINTS).tolist():
        # FLOPs per parameter and token drift with size (attention, output layer).
        cost = float(np.interp(np.log(size), np.log(sizes), costs))
        flops = cost * size * ratio * size
        if flops >= least:
            said = law.predict(size, ratio * size, level)
            way.append((flops, said.loss, said.low, said.high))
    return tuple(way)


def _flops_per_product(rungs: Sequence[Rung], size: float) -> float:
    """FLOPs over parameters × tokens, near 6, as the rungs of this size measured it."""
    return median(r.flops / (r.params * r.tokens) for r in rungs if r.params == size)
