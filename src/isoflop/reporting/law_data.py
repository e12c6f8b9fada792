"""What the figures of a law show, asked of `isoflop.laws`; fits nothing and draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws import design, isoflop, published
from isoflop.laws.curve_fit import Belief, Curve
from isoflop.laws.design import profile, profiled
from isoflop.laws.family import Estimate
from isoflop.laws.hyperparameters import HyperparameterLaw
from isoflop.laws.in_flight import watch
from isoflop.laws.predict import AUTO, FLOPS_PER_PARAMETER_TOKEN, Law, Optimal
from isoflop.laws.records import RunTable
from isoflop.laws.valley import GOOD
from isoflop.reporting.law_records import (
    Basin,
    Budget,
    Division,
    Fan,
    Frontier,
    KnownRun,
    LawFigures,
    Profile,
    Span,
)
from isoflop.reporting.records import Rung

_POINTS = 41
_BUDGETS = 5
_HIGHEST_ROOT = 2.8
_MOST_SEEN = 100
_ENDED = 0.99
"""Share of a run from which its logged losses are averaged: one alone is noisy."""
_MOST_BASINS = 6
BEYOND = 30.0
"""How many times the largest run's compute a frontier is drawn."""
COMPARED = {
    "kaplan": "Kaplan",
    "hoffmann-2": "Hoffmann 2",
    "hoffmann-3": "Hoffmann 3",
    "besiroglu": "Besiroglu",
    "deepseek": "DeepSeek",
    "llama-3": "Llama 3",
    "porian": "Porian",
}
"""Published laws beside one's own, and how a figure calls them."""
DIVIDING = ("surface", "data-constrained", "allocation")
"""Kinds of published laws that divide compute."""
LITERATURE: Span = (1e18, 1e26)
"""Compute over which published divisions are drawn: that of the models they are compared with."""
_WIDTHS = 3.0
"""Half-widths of the good basin drawn on each side of the best learning rate."""


class DividingLaw(Protocol):
    """What a law must be able to do for its frontier and its division of compute."""

    def optimal(self, flops: float, level: float = 0.9) -> Optimal:
        """The best size and horizon."""
        ...


def rungs_of(table: RunTable, law: Law | None) -> tuple[Rung, ...]:
    """The runs of a table, each with what the law says of it."""
    return tuple(
        Rung(
            run_id=table.run_id[i],
            params=float(table.params[i]),
            tokens=float(table.tokens[i]),
            loss=float(table.loss[i]),
            flops=FLOPS_PER_PARAMETER_TOKEN * float(table.params[i] * table.tokens[i]),
            predicted=None
            if law is None
            else law.predict(float(table.params[i]), float(table.tokens[i])).loss,
        )
        for i in range(len(table))
    )


def surface_figures(law: Law, rungs: Sequence[Rung], level: float = 0.9) -> LawFigures:
    """All that a loss surface and its runs (none, if only the law is at hand) allow."""
    budgets, measured = budgets_of(law, rungs)
    form = "gamma" if law.form == AUTO else law.form
    fitted = law.domain["flops"]
    return LawFigures(
        frontier=frontier_of(law, fitted, level),
        budgets=budgets,
        budgets_measured=measured,
        divisions=divisions_of(law, fitted),
        models=known_runs() if BEYOND * fitted[1] >= LITERATURE[0] else (),
        profiles=profiles_of(form, rungs),
        profiled=form,
    )


def profiles_of(form: str, rungs: Sequence[Rung]) -> tuple[Profile, ...]:
    """How well the runs determine a form's floor and exponents; empty without runs to fit."""
    if not rungs:
        return ()
    table = table_of(rungs)
    return tuple(drawn_profile(profile(table, form, name)) for name in profiled(form))


def drawn_profile(found: design.Profile) -> Profile:
    """A profile with points between those tried: the root of its drop is nearly straight."""
    x = np.log(np.array(found.values) / found.best)
    root = np.sign(x) * np.sqrt(found.drop)
    shown = np.clip([root[0], root[-1]], -_HIGHEST_ROOT, _HIGHEST_ROOT)
    ends = np.interp(shown, root, x)
    grid = np.linspace(ends[0], ends[1], _POINTS)
    line = np.interp(grid, x, root) ** 2
    points = tuple(zip((found.best * np.exp(grid)).tolist(), line.tolist(), strict=True))
    low = found.low if found.low > 0.0 else None
    high = found.high if np.isfinite(found.high) else None
    return Profile(found.parameter, found.best, points, low, high)


def table_of(rungs: Sequence[Rung]) -> RunTable:
    params, tokens, loss = np.array([(r.params, r.tokens, r.loss) for r in rungs]).T
    return RunTable.from_arrays(params, tokens, loss)


def frontier_of(law: DividingLaw, fitted: Span, level: float = 0.9, reach: float = 0.0) -> Frontier:
    """The law's lowest loss from the cheapest run to BEYOND times the largest, or to `reach`."""
    points = []
    inside = np.geomspace(*fitted, _POINTS // 2 + 1)
    beyond = np.geomspace(fitted[1], max(reach, BEYOND * fitted[1]), _POINTS // 2 + 1)
    for flops in np.concatenate([inside, beyond[1:]]).tolist():
        best = law.optimal(flops, level).loss
        points.append((flops, best.loss, best.low, best.high))
    return Frontier(tuple(points), level, fitted[1])


def budgets_of(law: Law, rungs: Sequence[Rung]) -> tuple[tuple[Budget, ...], bool]:
    """Parabolas through runs of equal compute; without such runs, the law's own valleys.

    The second value says which.
    """
    if rungs:
        try:
            return parabolas_of(table_of(rungs)), True
        except TableError:  # not made at fixed budgets
            pass
    return _law_valleys(law), False


def parabolas_of(table: RunTable) -> tuple[Budget, ...]:
    budgets = []
    for rows in isoflop.slices(table):
        params, loss = table.params[rows], table.loss[rows]
        flops = FLOPS_PER_PARAMETER_TOKEN * float(
            np.exp(np.mean(np.log(table.params[rows] * table.tokens[rows])))
        )
        runs = tuple(sorted(zip(params.tolist(), loss.tolist(), strict=True)))
        lowest = isoflop.valley(np.log(params), loss)
        if lowest is None:
            budgets.append(Budget(flops, runs, (), None))
            continue
        ln_n, value, _, _ = lowest
        x, y = np.array([(np.log(n), v) for n, v in runs]).T
        near = y <= y.min() * (1.0 + isoflop.WINDOW)
        near[int(np.argmin(y)) - 1 : int(np.argmin(y)) + 2] = True
        bend, slope, height = np.polyfit(x[near] - ln_n, y[near], 2)
        grid = np.linspace(x[near].min(), x[near].max(), _POINTS)
        line = height + slope * (grid - ln_n) + bend * (grid - ln_n) ** 2
        valley = zip(np.exp(grid).tolist(), line.tolist(), strict=True)
        budgets.append(Budget(flops, runs, tuple(valley), (float(np.exp(ln_n)), value)))
    return tuple(budgets)


def _law_valleys(law: Law) -> tuple[Budget, ...]:
    budgets = []
    low, high = law.domain["flops"]
    for flops in np.geomspace(max(low, high / 1e3), high, _BUDGETS).tolist():
        best = law.optimal(flops)
        sizes = (best.params * np.geomspace(1 / 8, 8, _POINTS)).tolist()
        valley = tuple(
            (n, law.predict(n, flops / (FLOPS_PER_PARAMETER_TOKEN * n)).loss) for n in sizes
        )
        budgets.append(Budget(flops, (), valley, (best.params, best.loss.loss)))
    return tuple(budgets)


def divisions_of(law: DividingLaw, fitted: Span | None) -> tuple[Division, ...]:
    """The law's division of compute beside those of the literature.

    Args:
        fitted: FLOPs of its smallest and largest run; a published law, which has none here, is
            drawn over the compute of the literature's models.
    """
    own = LITERATURE if fitted is None else (fitted[0], BEYOND * fitted[1])
    reach = LITERATURE if own[1] >= LITERATURE[0] else own
    found = [
        Division(name, _divided(published.published_law(key), reach), False, None)
        for key, name in COMPARED.items()
        if key != getattr(law, "name", "")
    ]
    return (*found, Division("this law", _divided(law, own, fitted or ()), True, fitted))


def _divided(
    law: DividingLaw, reach: Span, also: Sequence[float] = ()
) -> tuple[tuple[float, float, float], ...]:
    points = []
    for flops in sorted({*np.geomspace(*reach, 17).tolist(), *also}):
        best = law.optimal(flops)
        points.append((flops, best.params, best.tokens))
    return tuple(points)


def known_runs() -> tuple[KnownRun, ...]:
    """The literature's models whose size and tokens are public."""
    found = []
    for model in published.known_models():
        used, flops = model.active_params or model.params, model.compute
        if used is not None and model.tokens is not None and flops is not None:
            found.append(KnownRun(model.name, flops, used, model.tokens))
    return tuple(found)


def basins_of(law: HyperparameterLaw, table: RunTable) -> tuple[Basin, ...]:
    """Loss against learning rate at each setting of a sweep, and the law's valley there.

    Empty where the law comes from a table of optima, which shows no valley. Where batches vary too,
    the runs of a setting are those nearest its best batch.
    """
    curvature = law.noise["curvature"]
    if curvature is None:
        return ()
    bend = float(curvature[0][0])
    half = float(np.sqrt(2.0 * GOOD / bend))
    found = []
    tried = np.isfinite(table.learning_rate)
    for params, tokens in sorted(
        set(zip(table.params.tolist(), table.tokens.tolist(), strict=True))
    ):
        rows = np.flatnonzero((table.params == params) & (table.tokens == tokens) & tried)
        said = law.predict(params, tokens)
        if said.batch_tokens is not None:
            off = np.abs(np.log(table.batch_tokens[rows] / said.batch_tokens.best.value))
            rows = rows[off <= np.nanmin(off) + 1e-9]
        if len(rows) < 3:
            continue
        best = said.learning_rate.best.value
        x, y = np.log(table.learning_rate[rows] / best), np.log(table.loss[rows])
        near = y <= y.min() + 4 * GOOD
        floor = float(np.mean(y[near] - 0.5 * bend * x[near] ** 2))
        grid = np.linspace(-_WIDTHS * half, _WIDTHS * half, _POINTS)
        found.append(
            Basin(
                params,
                tokens,
                _percents(table.learning_rate[rows], y - floor),
                _percents(best * np.exp(grid), 0.5 * bend * grid**2),
                best,
                (best * float(np.exp(-half)), best * float(np.exp(half))),
            )
        )
    return _spread_out(found)


def _spread_out(basins: list[Basin]) -> tuple[Basin, ...]:
    """A few settings from the least compute to the most, those with more rates first."""
    ordered = sorted(basins, key=lambda b: b.params * b.tokens)
    most = max((len(b.runs) for b in ordered), default=0)
    full = [b for b in ordered if len(b.runs) >= most / 2 or b is ordered[-1]]
    picked = np.unique(np.linspace(0, len(full) - 1, _MOST_BASINS).round().astype(int))
    return tuple(full[i] for i in picked) if full else ()


def _percents(rate: Any, ln_excess: Any) -> tuple[tuple[float, float], ...]:
    pairs = zip(rate.tolist(), (100.0 * np.expm1(ln_excess)).tolist(), strict=True)
    return tuple(sorted(pairs))


def fan_of(
    curve: Curve,
    *,
    belief: Belief | None = None,
    promise: Estimate | None = None,
    target: float | None = None,
    level: float = 0.9,
    moments: int = 12,
) -> Fan:
    """What `watch` says of a run's end at moments evenly spread over what is seen of it.

    Raises:
        TableError: Nothing can be said yet: too few points after the warm-up.
    """
    seen = curve.after_warmup()
    ends = np.unique(np.linspace(0, len(seen.step), moments + 1).astype(int))
    forecasts = []
    problem: TableError | None = None
    for end in ends[1:].tolist():
        part = replace(seen, step=seen.step[:end], loss=seen.loss[:end]) if end > 1 else None
        if part is None:
            continue
        try:
            said = watch(part, belief=belief, level=level).own
        except TableError as error:  # too early
            problem = error
            continue
        forecasts.append((float(part.step[-1]), said.value, said.low, said.high))
    if not forecasts and problem is not None:
        raise problem
    ended = float(curve.step[-1]) >= curve.schedule.end * 0.9999
    return Fan(
        run_id=curve.run_id,
        end=curve.schedule.end,
        seen=_thinned(curve),
        forecasts=tuple(forecasts),
        level=level,
        outcome=float(np.mean(curve.loss[curve.step >= _ENDED * curve.schedule.end]))
        if ended
        else None,
        promise=None if promise is None else (promise.value, promise.low, promise.high),
        target=target,
    )


def _thinned(curve: Curve) -> tuple[tuple[float, float], ...]:
    """(step, loss) of the curve, neighbours averaged where there are very many."""
    parts = np.array_split(np.arange(len(curve.step)), min(len(curve.step), _MOST_SEEN))
    return tuple((float(curve.step[p].mean()), float(curve.loss[p].mean())) for p in parts)
