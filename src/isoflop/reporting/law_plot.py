"""A law or a backtest as one SVG file that stands alone: `isoflop laws … --plot FILE.svg`.

Not for the report, which lays out the same figures itself (law_section).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from isoflop.core.errors import TableError
from isoflop.laws import design
from isoflop.laws.backtest import Backtest
from isoflop.laws.curve import CurveLaw
from isoflop.laws.curve_fit import Belief, Curve
from isoflop.laws.predict import Law
from isoflop.laws.schedule_terms import Schedule
from isoflop.reporting import law_data, law_trends, svg
from isoflop.reporting.charts import Canvas
from isoflop.reporting.law_drawings import (
    Drawing,
    backtest_drawings,
    fan_drawing,
    law_drawings,
    trend_drawing,
)
from isoflop.reporting.law_misfits import judged_rungs
from isoflop.reporting.law_records import Coverage, LawFigures

if TYPE_CHECKING:
    from isoflop.laws.fitting import AnyTable
    from isoflop.laws.load import AnyLaw
    from isoflop.laws.published import PublishedLaw

_WIDTH = 820.0
_MARGIN = 28.0
_GAP = 46.0
_LINE = 112
"""Characters that fit into one line under a title."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PAGE_STYLE = (
    "body { margin: 0; background: #fdfcfa; } "
    "body > svg { display: block; margin: auto; max-width: 100%; height: auto; } "
    "@media (prefers-color-scheme: dark) { body { background: #14161a; } }"
)
_VARIABLE = re.compile(r"var\(--([a-z0-9]+)\)")


def plot_law(law: AnyLaw | PublishedLaw, table: AnyTable | None = None) -> str:
    """The figures that a law allows, one below the other, as an SVG document.

    Args:
        law: Of any form, fitted or published.
        table: What it was fitted to; without its runs the law is drawn alone.

    Raises:
        TableError: There is no figure for this form, or it needs the runs.
    """
    runs = law_trends.runs_of(table)
    surface = law if isinstance(law, Law) else None
    rungs = () if runs is None else law_data.rungs_of(runs, surface)
    figures = law_trends.figures_of(law, rungs, table)
    judged = judged_rungs(law, table) or rungs
    drawn = law_drawings(figures, judged)
    if not drawn:
        raise TableError(
            f"there is nothing to draw of a law of the form {law.form} alone",
            fix="Give --plot to `isoflop laws fit`, which has the runs",
        )
    count = getattr(law, "n_runs", 0)
    return sheet(f"{law.form}: {law.formula}" + (f", {count} runs" if count else ""), drawn)


def plot_prediction(law: AnyLaw | PublishedLaw, asked: Mapping[str, Any], level: float) -> str:
    """A forecast and its surroundings, as an SVG document.

    Args:
        asked: What `predict` was given, by name; of a curve law `schedule`.
        level: Probability of the bands.

    Raises:
        TableError: There is no figure for this form, or the law refuses what was asked.
    """
    drawn: list[Drawing] = []
    schedule = asked.get("schedule")
    if isinstance(law, CurveLaw) and isinstance(schedule, Schedule):
        drawn.append(trend_drawing(law_trends.forecast_curve(law, schedule, level)))
    elif (trend := law_trends.forecast_trend(law, asked, level)) is not None:
        drawn.append(trend_drawing(trend))
    if isinstance(law, Law):
        frontier = law_data.frontier_of(law, law.domain["flops"], level)
        marked = law_trends.mark(frontier, law, asked["params"], asked["tokens"], level)
        drawn += law_drawings(LawFigures(frontier=marked))
    if not drawn:
        raise TableError(
            f"there is nothing to draw of a forecast by the form {law.form}",
            fix="Leave --plot out; `isoflop laws fit --plot` draws the law itself",
        )
    return sheet(f"{law.form}: {law.formula}", drawn)


def plot_profiles(form: str, profiles: Sequence[design.Profile]) -> str:
    """Profile likelihoods of a form's parameters, as an SVG document."""
    drawn = tuple(map(law_data.drawn_profile, profiles))
    return sheet(f"{form} form", law_drawings(LawFigures(profiles=drawn, profiled=form)))


def plot_backtest(backtest: Backtest, *others: Backtest) -> str:
    """Errors and intervals of the held-out runs, and how often the intervals held, as SVG.

    Args:
        backtest: Drawn run by run.
        others: The same at other levels, for the calibration.
    """
    coverages = [
        Coverage(b.level, sum(p.held for p in b.points), len(b.points)) for b in (backtest, *others)
    ]
    title = (
        f"{backtest.form} ({backtest.objective}), fitted to {backtest.n_fit} runs, scored on "
        f"{backtest.n_held_out}: median error {backtest.median_error_percent:.2f} %, "
        f"{backtest.coverage:.0%} inside the {backtest.level:.0%} intervals"
    )
    return sheet(title, backtest_drawings(backtest, coverages))


def plot_run(curve: Curve, belief: Belief | None = None, target: float | None = None) -> str:
    """What a run in flight foretold of its end on the way, as SVG.

    Raises:
        TableError: Too little of the curve is seen.
    """
    fan = law_data.fan_of(curve, belief=belief, target=target)
    return sheet(curve.run_id, [fan_drawing(fan)])


def page(picture: str, title: str) -> str:
    """A picture as an HTML page that needs no other file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{svg.text(title)}</title>'
        f"<style>{_PAGE_STYLE}</style></head>\n<body>{picture}</body></html>\n"
    )


# --- a picture of its own ------------------------------------------------------------------


def sheet(title: str, drawn: Sequence[Drawing]) -> str:
    """Drawings under each other in one SVG document with its own colours, light and dark."""
    width = _WIDTH + 2 * _MARGIN
    y = 54.0
    parts = [svg.words(_MARGIN, y - 18, title, "label")]
    for i, drawing in enumerate(drawn):
        parts.append(svg.words(_MARGIN, y + 22, drawing.title, "title"))
        y += 30
        for line in wrap(drawing.says, _LINE):
            y += 16
            parts.append(svg.words(_MARGIN, y, line, "tick"))
        y += 14
        # Nested, so that the drawing keeps its own coordinates, name and description.
        inner = drawing.draw(Canvas(_WIDTH, drawing.height, f"plot{i}"))
        place = (
            f'<svg x="{svg.number(_MARGIN)}" y="{svg.number(y)}" '
            f'width="{svg.number(_WIDTH)}" height="{svg.number(drawing.height)}" '
            'overflow="visible" '
        )
        parts.append(inner.replace("<svg ", place, 1))
        y += drawing.height + _GAP
    total = y - _GAP + _MARGIN
    described = "; ".join(d.title for d in drawn)
    picture = svg.picture(width, total, "sheet", title, described, "".join(parts))
    size = f'<svg width="{svg.number(width)}" height="{svg.number(total)}" '
    paper = svg.element("rect", width=width, height=total, class_="sheet")
    head, opened, rest = picture.partition("</desc>")
    return head.replace("<svg ", size, 1) + f"{opened}<style>{style()}</style>{paper}{rest}\n"


def style() -> str:
    """The rules of `assets/chart.css` with the colours put in.

    Other programs than browsers draw such files, and most know no CSS variables.
    """
    text = resources.files("isoflop.reporting").joinpath("assets/chart.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z0-9]+):\s*([^;]+);", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL)[:2]
    )
    rules = text[text.index(".c0 {") :].replace("svg .", ".") + ".sheet { fill: var(--paper); }\n"
    night = _coloured(rules, {**light, **dark})
    return (
        f"{_coloured(rules, light)}@media screen and (prefers-color-scheme: dark) {{\n{night}}}\n"
    )


def _coloured(rules: str, palette: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: " ".join(palette[match[1]].split()), rules)
