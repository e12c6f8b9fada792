"""One quantity against another by laws of every form, and how far measured values lie from them.

Values only, asked of `isoflop.laws`; not for loss surfaces' own figures (law_data) nor for drawing
(trend_figures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws import isoflop
from isoflop.laws.curve import CurveLaw
from isoflop.laws.family import Estimate
from isoflop.laws.frontier import FrontierLaw
from isoflop.laws.hyperparameters import HyperparameterLaw
from isoflop.laws.isoflop_law import IsoflopLaw
from isoflop.laws.mixture import MixtureLaw
from isoflop.laws.power import AXES, PowerLaw
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Law, Prediction
from isoflop.laws.published import PublishedLaw
from isoflop.laws.records import RunTable
from isoflop.laws.tables import CurveTable, FigureTable, MixtureTable
from isoflop.laws.tasks import TaskLaw
from isoflop.reporting import law_data, law_misfits, numbers
from isoflop.reporting.law_records import Fan, Frontier, LawFigures, LossCurve, Span, Trend
from isoflop.reporting.records import Rung

if TYPE_CHECKING:
    from isoflop.laws.fitting import AnyTable
    from isoflop.laws.load import AnyLaw, FamilyLaw
    from isoflop.laws.schedule_terms import Schedule

    Band = Callable[[float], tuple[float, float, float]]
    """x → value, low, high."""

_POINTS = 49
_AROUND = 8.0
"""Times more and less of the tokens asked about that a forecast is drawn for."""
_MOST_CURVES = 6
_MOST_FANS = 2
_X_NAMES = {
    "params": "parameters",
    "tokens": "training tokens",
    "flops": "training compute, FLOPs",
}
_LOSS = "loss, nats/token"


def figures_of(
    law: AnyLaw | PublishedLaw,
    rungs: Sequence[Rung] = (),
    table: AnyTable | None = None,
    level: float = 0.9,
) -> LawFigures:
    """The figures that a law of any form and its runs allow; none is an empty `LawFigures`.

    Args:
        law: Any law that `load.find_law` opens.
        rungs: The runs behind a surface.
        table: What it was fitted to; without it the law is drawn alone, where it can be.
    """
    if isinstance(law, Law):
        return law_data.surface_figures(law, rungs, level)
    if isinstance(law, PublishedLaw):
        if law.kind not in law_data.DIVIDING:
            return LawFigures()
        return LawFigures(divisions=law_data.divisions_of(law, None), models=law_data.known_runs())
    if isinstance(law, IsoflopLaw | FrontierLaw):
        runs = table if isinstance(table, RunTable) else law_data.table_of(rungs) if rungs else None
        return LawFigures(
            trends=(_frontier_trend(law, runs, level),) if isinstance(law, FrontierLaw) else (),
            budgets=() if runs is None else law_data.parabolas_of(runs),
            budgets_measured=True,
            divisions=law_data.divisions_of(law, law.domain["flops"]),
            models=law_data.known_runs(),
        )
    return _family_figures(law, table, level)


def _family_figures(law: FamilyLaw, table: AnyTable | None, level: float) -> LawFigures:
    if isinstance(law, PowerLaw):
        return LawFigures(trends=(_power_trend(law, table, level),))
    if isinstance(law, TaskLaw):
        return LawFigures(trends=(_task_trend(law, table, level),))
    if isinstance(law, CurveLaw) and isinstance(table, CurveTable):
        return LawFigures(curves=_loss_curves(law, table), fans=_fans(table, level))
    if isinstance(law, MixtureLaw) and isinstance(table, MixtureTable):
        return LawFigures(misfit=law_misfits.mixture_misfit(law, table))
    if isinstance(law, HyperparameterLaw) and isinstance(table, RunTable | FigureTable):
        misfit = law_misfits.optima_misfit(law, table)
        runs = runs_of(table)
        basins = law_data.basins_of(law, runs) if misfit is None and runs is not None else ()
        return LawFigures(misfit=misfit, basins=basins)
    if law.form == "quantisation" and isinstance(table, FigureTable):
        return LawFigures(misfit=law_misfits.added_misfit(law, table))
    return LawFigures()


def runs_of(table: AnyTable | None) -> RunTable | None:
    """The table as runs, where its rows are such."""
    if isinstance(table, FigureTable) and {"params", "tokens", "loss"} <= set(table.figures):
        get = table.figures.get
        return RunTable.from_arrays(
            *(table.figures["params"], table.figures["tokens"], table.figures["loss"]),
            learning_rate=get("learning_rate"),
            batch_tokens=get("batch_tokens"),
        )
    return table if isinstance(table, RunTable) else None


# --- laws and their runs -------------------------------------------------------------------


def _power_trend(law: PowerLaw, table: Any, level: float) -> Trend:
    axis = AXES[law.form]

    def band(x: float) -> tuple[float, float, float]:
        return _of(law.predict(**{axis: x, "level": level}))

    return _trend(
        f"Loss against {_X_NAMES[axis].partition(',')[0]}",
        *(_X_NAMES[axis], _LOSS, band, _reach(law.domain[axis]), level),
        runs=_runs(table, axis),
        fitted=law.domain[axis],
    )


def _frontier_trend(law: FrontierLaw, table: RunTable | None, level: float) -> Trend:
    return _trend(
        "Lowest loss against compute",
        *(_X_NAMES["flops"], _LOSS, lambda x: _of(law.predict(x, level))),
        *(_reach(law.domain["flops"]), level),
        runs=_budget_minima(table),
        fitted=law.domain["flops"],
    )


def _budget_minima(table: RunTable | None) -> tuple[tuple[float, float, str], ...]:
    """The minima of the table's IsoFLOP slices, which are what the frontier runs through."""
    if table is None:
        return ()
    return tuple(
        (m.flops, m.loss, f"{numbers.scientific(m.flops)} FLOPs: lowest {m.loss:.4f}")
        for m in isoflop.minima(table)[0]
    )


def _task_trend(law: TaskLaw, table: Any, level: float, asked: float | None = None) -> Trend:
    low, high = law.domain["loss"]
    below = max(0.4 * low, low - 0.5 * (high - low))
    runs: tuple[tuple[float, float, str], ...] = ()
    if isinstance(table, FigureTable):
        pairs = zip(table.figures["loss"].tolist(), table.figures["score"].tolist(), strict=True)
        runs = tuple((x, y, f"loss {x:.4f}: score {y:.3f}") for x, y in pairs)
    return _trend(
        "Task score against loss",
        *(_LOSS, "score", lambda x: _of(law.predict(x, level))),
        *((below if asked is None else min(below, 0.97 * asked), high), level),
        runs=runs,
        fitted=(low, high),
        log=False,
    )


def _loss_curves(law: CurveLaw, table: CurveTable) -> tuple[LossCurve, ...]:
    """The longest curves after their warm-up, with the law along the same schedule."""
    longest = sorted(table.curves, key=lambda c: -float(c.step[-1]))[:_MOST_CURVES]
    found = []
    for curve in longest:
        seen = curve.after_warmup()
        rows = np.unique(np.linspace(0, len(seen.step) - 1, 4 * _POINTS).astype(int))
        said = law.predict(seen.schedule, seen.step[rows])
        found.append(
            LossCurve(
                curve.run_id,
                _pairs(seen.step[rows], seen.loss[rows]),
                _pairs(said.step, said.loss),
            )
        )
    return tuple(found)


def _fans(table: CurveTable, level: float) -> tuple[Fan, ...]:
    """What the longest curves foretold of their own ends on the way, where anything can be said."""
    found: list[Fan] = []
    for curve in sorted(table.curves, key=lambda c: -float(c.step[-1])):
        falls = curve.schedule.rate[-1] < 0.9 * curve.schedule.peak
        if not falls or len(found) == _MOST_FANS:  # a constant rate has no end to foretell
            continue
        try:
            found.append(law_data.fan_of(curve, level=level))
        except TableError:
            continue
    return tuple(found)


# --- forecasts -----------------------------------------------------------------------------


def forecast_trend(law: Any, asked: Mapping[str, Any], level: float) -> Trend | None:
    """The forecast asked for, and how it moves along the law's own variable; None without any.

    Args:
        asked: What the law's `predict` was given, by name: `params`, `tokens`, `flops`, `loss` and
            what its form takes besides.
    """
    given = {k: v for k, v in asked.items() if k != "level" and v is not None}
    if isinstance(law, TaskLaw):
        error = given.get("loss_stderr", 0.0)
        drawn = _task_trend(law, None, level, given["loss"])
        return _marked(drawn, given["loss"], _of(law.predict(given["loss"], level, error)))
    if isinstance(law, HyperparameterLaw):
        return _rate_trend(law, given, level)
    axis = _axis(law, given)
    if axis is None or axis not in given:
        return None
    rest = {k: v for k, v in given.items() if k != axis}
    if law.form == "kaplan-c":
        rest = {}

    def band(x: float) -> tuple[float, float, float]:
        return _of(law.predict(**{**rest, axis: x}, level=level))

    fitted = law.domain.get(axis)
    value = float(given[axis])
    return _marked(
        _trend(
            f"Loss against {_X_NAMES[axis].partition(',')[0]}{_held(rest)}",
            _X_NAMES[axis],
            "added loss, nats/token" if law.form == "quantisation" else _LOSS,
            band,
            (value / _AROUND, value * _AROUND),
            level,
            fitted=fitted,
        ),
        value,
        band(value),
    )


def mark(frontier: Frontier, law: Law, params: float, tokens: float, level: float) -> Frontier:
    """The frontier with the run asked about, and drawn as far as it."""
    flops = FLOPS_PER_PARAMETER_TOKEN * params * tokens
    said = law.predict(params, tokens, level)
    low, high = min(law.domain["flops"][0], flops), max(law.domain["flops"][1], flops)
    if flops > frontier.points[-1][0] or flops < frontier.points[0][0]:
        frontier = law_data.frontier_of(law, (low, law.domain["flops"][1]), level, high)
    return replace(frontier, asked=(flops, *_of(said)))


def _axis(law: Any, given: Mapping[str, Any]) -> str | None:
    """What a forecast is drawn along."""
    if law.form in ("kaplan-n", "power-n"):
        return "params"
    if law.form in ("kaplan-c", "frontier"):
        return "flops" if "flops" in given else None
    return "tokens"


def _held(rest: Mapping[str, Any]) -> str:
    """`, 7 B parameters`: what stays as it was asked."""
    said = []
    if "params" in rest:
        said.append(f"{numbers.count(rest['params'])} parameters")
    if "unique_tokens" in rest:
        said.append(f"{numbers.count(rest['unique_tokens'])} unique tokens")
    said += [f"{rest[name]:g} {name}" for name in ("experts", "bits") if name in rest]
    return f", {', '.join(said)}" if said else ""


def _rate_trend(law: HyperparameterLaw, given: Mapping[str, Any], level: float) -> Trend:
    """The best learning rate along the tokens, at the size asked for."""
    params, tokens = float(given["params"]), float(given["tokens"])

    def band(x: float) -> tuple[float, float, float]:
        return _of(law.predict(params, x, level).learning_rate.best)

    return _marked(
        _trend(
            f"Best learning rate, {numbers.count(params)} parameters",
            _X_NAMES["tokens"],
            "learning rate",
            band,
            (tokens / _AROUND, tokens * _AROUND),
            level,
            fitted=law.domain.get("tokens"),
        ),
        tokens,
        band(tokens),
    )


def forecast_curve(law: CurveLaw, schedule: Schedule, level: float) -> Trend:
    """The curve that a schedule is to have after its first steps, with its end marked."""
    begin = max(schedule.risen, 0.04 * schedule.end)
    said = law.predict(schedule, np.linspace(begin, schedule.end, 4 * _POINTS), level)
    columns = (said.step, said.loss, said.low, said.high)
    points = tuple(zip(*(c.tolist() for c in columns), strict=True))
    return Trend("Loss under the schedule", "steps", _LOSS, points, level, log=False,
                 asked=points[-1])  # fmt: skip


# --- pieces --------------------------------------------------------------------------------


def _trend(
    title: str,
    x_name: str,
    y_name: str,
    band: Band,
    span: Span,
    level: float,
    *,
    runs: Sequence[tuple[float, float, str]] = (),
    fitted: Span | None = None,
    log: bool = True,
) -> Trend:
    space = np.geomspace if log else np.linspace
    ends = [x for x in fitted or () if span[0] < x < span[1]]
    grid = sorted({*space(*span, _POINTS).tolist(), *ends})
    points = tuple((x, *band(x)) for x in grid)
    return Trend(title, x_name, y_name, points, level, tuple(runs), fitted, log=log)


def _marked(trend: Trend, x: float, said: tuple[float, float, float]) -> Trend:
    return replace(trend, asked=(x, *said))


def _of(said: Prediction | Estimate) -> tuple[float, float, float]:
    value = said.value if isinstance(said, Estimate) else said.loss
    if not np.isfinite(said.low):  # published without anything to derive an interval from
        return value, value, value
    return value, said.low, said.high


def _reach(domain: Span) -> Span:
    return domain[0], law_data.BEYOND * domain[1]


def _runs(table: Any, axis: str) -> tuple[tuple[float, float, str], ...]:
    if not isinstance(table, RunTable):
        return ()
    at = getattr(table, axis)
    rows = zip(at.tolist(), table.loss.tolist(), table.run_id, strict=True)
    return tuple((x, y, f"{name}: loss {y:.4f}") for x, y, name in rows)


def _pairs(x: Any, y: Any) -> tuple[tuple[float, float], ...]:
    return tuple(zip(x.tolist(), y.tolist(), strict=True))
