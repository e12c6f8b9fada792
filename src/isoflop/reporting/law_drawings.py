"""Which figures there are, what stands under each, and in what order; draws through the others.

Shared by the report (law_section) and by pictures that stand alone (law_plot).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from isoflop.laws.backtest import Backtest
from isoflop.reporting import fit_figures, law_figures, trend_figures
from isoflop.reporting.charts import Canvas
from isoflop.reporting.law_records import Coverage, Fan, LawFigures, Trend
from isoflop.reporting.records import Rung


@dataclass(frozen=True)
class Drawing:
    """A figure ready to be drawn on a canvas."""

    title: str
    says: str
    """What to see in it, in a sentence or two."""
    draw: Callable[[Canvas], str]
    height: float
    chinese: tuple[str, str] | None = None
    """Title and what to see, in Chinese, for pages with both."""


def law_drawings(figures: LawFigures, rungs: Sequence[Rung] = ()) -> tuple[Drawing, ...]:
    """The figures that there are data for, in reading order.

    Args:
        rungs: The runs behind the law, with what it says of each; residuals need them.
    """
    drawn = [*_others(figures)]
    if figures.frontier is not None:
        dots = "Dots: runs. " if rungs else ""
        ring = " Ring and bar: what was asked for." if figures.frontier.asked else ""
        drawn.append(
            Drawing(
                "Loss against compute",
                f"{dots}Line: the lowest loss the law gives each budget, with its "
                f"{figures.frontier.level:.0%} band; dashed where no run is as large.{ring}",
                partial(law_figures.frontier_chart, figures.frontier, rungs),
                420,
                (
                    "损失与计算量",
                    "点：各次运行。曲线：定律对每份预算给出的最低损失及其区间；"
                    "虚线处没有这么大的运行。",
                ),
            )
        )
    if any(r.predicted is not None for r in rungs):
        drawn.append(
            Drawing(
                "Residuals by size and horizon",
                "Measured against the law, with running medians. Where a median leaves zero, the "
                "form does not fit; where it does so at the right end, forecasts go wrong.",
                partial(law_figures.misfit_chart, rungs),
                280,
                (
                    "按规模与训练长度的残差",
                    "实测与定律之差，附滑动中位数。中位数离开零处，该形式不合；若在右端离开，预告会出错。",
                ),
            )
        )
    if figures.budgets:
        says = "The law’s own valleys; the table has no runs of equal compute."
        if figures.budgets_measured:
            says = "Runs of equal compute and a parabola through those near the lowest."
        drawn.append(
            Drawing(
                "IsoFLOP families",
                f"{says} Dashed: the line of the minima.",
                partial(law_figures.isoflop_chart, figures.budgets),
                420,
            )
        )
    if figures.divisions:
        drawn.extend(_allocation(figures))
    if figures.profiles:
        rows = -(-len(figures.profiles) // fit_figures.WIDE_COLUMNS)
        drawn.append(
            Drawing(
                "Profile likelihoods",
                f"How much worse the best fit of the {figures.profiled} form, all runs weighing "
                "alike, becomes when one parameter is held at other values; dotted: the 95 % "
                "limit. A flat one is a parameter the runs do not show.",
                partial(fit_figures.profile_chart, figures.profiles),
                200.0 * rows,
            )
        )
    if figures.basins:
        drawn.append(
            Drawing(
                "Learning-rate basins",
                "Dots: runs. Lines: the law’s valley at each setting. Shaded: the rates that lose "
                f"at most {fit_figures.GOOD_PERCENT} % of the loss at the largest setting.",
                partial(fit_figures.basin_chart, figures.basins),
                420,
            )
        )
    return tuple(drawn)


def _others(figures: LawFigures) -> tuple[Drawing, ...]:
    """Trends, distances, loss curves and runs in flight."""
    drawn = [trend_drawing(trend, i) for i, trend in enumerate(figures.trends)]
    if figures.misfit is not None:
        drawn.append(
            Drawing(
                "Measured against the law",
                "Each value that was fitted, and how far it lies from the law. A trend along the "
                "axis is a form that does not fit.",
                partial(trend_figures.misfit_by_value_chart, figures.misfit),
                360,
            )
        )
    if figures.curves:
        drawn.append(
            Drawing(
                "Loss curves",
                "Lines: measured. Dashed: the law under the same schedules.",
                partial(trend_figures.curves_chart, figures.curves),
                420,
            )
        )
    return (*drawn, *(fan_drawing(fan, i) for i, fan in enumerate(figures.fans)))


def trend_drawing(trend: Trend, place: int = 0) -> Drawing:
    """One quantity against another.

    Args:
        place: Which of several on a page.
    """
    says = ["Dots: runs." if trend.runs else "", f"Line: the law, with its {trend.level:.0%} band"]
    says[1] += "; dashed beyond its runs." if trend.fitted else "."
    says.append("Ring and bar: what was asked for." if trend.asked else "")
    said = " ".join(filter(None, says))
    return Drawing(trend.title, said, _apart(trend_figures.trend_chart, trend, place), 420)


def _apart(chart: Callable[[Any, Canvas], str], data: Any, place: int) -> Callable[[Canvas], str]:
    """The chart under a name of its own, where a page has several of the kind."""

    def draw(canvas: Canvas) -> str:
        return chart(data, replace(canvas, name=f"{place}-{canvas.name}" if place else canvas.name))

    return draw


def _allocation(figures: LawFigures) -> tuple[Drawing, ...]:
    return (
        Drawing(
            "Best size for each amount of compute",
            "Thick: where the law was fitted. Laws count parameters differently, which moves their "
            "lines too.",
            partial(law_figures.allocation_chart, figures.divisions, figures.models, "params"),
            420,
        ),
        Drawing(
            "Best horizon for each amount of compute",
            "A model above the lines was trained longer than training compute alone would ask for."
            if figures.models
            else "The same laws, in training tokens.",
            partial(law_figures.allocation_chart, figures.divisions, figures.models, "tokens"),
            420,
        ),
    )


def backtest_drawings(backtest: Backtest, coverages: Sequence[Coverage]) -> tuple[Drawing, ...]:
    """Errors run by run, and how often the intervals held."""
    return (
        Drawing(
            "Held-out runs",
            "Each run against its forecast. Bars: the promised intervals; orange dots lie outside.",
            partial(fit_figures.backtest_chart, backtest),
            380,
        ),
        calibration_drawing(coverages),
    )


def calibration_drawing(coverages: Sequence[Coverage]) -> Drawing:
    """How often the intervals of each level held."""
    return Drawing(
        "Calibration",
        "On the dashed line intervals hold as often as they say. Bars: 90 % interval of the share "
        "(Wilson), as if the runs were independent.",
        partial(fit_figures.calibration_chart, coverages),
        360,
        (
            "校准",
            "落在虚线上的区间，兑现的频率与其自称相同。"
            "竖条：该比例的 90 % 区间（Wilson），按运行相互独立计。",
        ),
    )


def fan_drawing(fan: Fan, place: int = 0) -> Drawing:
    """A run in flight.

    Args:
        place: Which of several on a page.
    """
    return Drawing(
        f"What {fan.run_id} foretold of its own end",
        f"Line: the loss so far. Band: where the end was said to lie ({fan.level:.0%}), at each "
        "moment of the run.",
        _apart(fit_figures.fan_chart, fan, place),
        420,
        (
            f"{fan.run_id} 对自己结局的预告",
            f"曲线：至今的损失。色带：训练途中每一刻所预告的结局范围（{fan.level:.0%}）。",
        ),
    )
