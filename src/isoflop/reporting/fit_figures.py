"""Figures of how sure a forecast is: profiles, learning-rate basins, runs in flight, calibration.

Values in, SVG out; not for computing what they show (law_data) nor for the law itself
(law_figures).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

from isoflop.laws.backtest import Backtest
from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for, in_span, size_classes
from isoflop.reporting.law_records import Basin, Coverage, Fan, Profile
from isoflop.reporting.svg import Frame

LIMIT = 3.84
"""95 % point of chi-square with one degree of freedom: twice the log likelihood one may lose."""
_HIGHEST_DROP = 8.0
WIDE_COLUMNS = 4
GOOD_PERCENT = 0.25
_HIGHEST_EXCESS = 3.0
_NAMES = {
    "E": "floor E",
    "p": "exponent of N",
    "q": "exponent of D",
    "g": "g, how they combine",
}


# --- profile likelihoods -------------------------------------------------------------------


def profile_columns(canvas: Canvas) -> int:
    """How many profiles stand side by side."""
    return 2 if canvas.narrow else WIDE_COLUMNS


def profile_chart(profiles: Sequence[Profile], canvas: Canvas) -> str:
    """One small panel a parameter: how much the fit suffers when it is held elsewhere.

    A narrow valley is a parameter the runs determine; a flat floor one they do not.
    """
    columns = profile_columns(canvas)
    rows = -(-len(profiles) // columns)
    height = max(canvas.height, 160.0 * rows)
    small = Canvas(canvas.width / columns - 14, height / max(1, rows), canvas.name)
    panels = []
    for i, profile in enumerate(profiles):
        row, column = divmod(i, columns)
        x, y = column * (small.width + 14), row * small.height
        place = f"translate({svg.number(x)} {svg.number(y)})"
        panels.append(svg.element("g", _profile_panel(profile, small), transform=place))
    words = []
    for profile in profiles:
        ends = f"{_end(profile.low)} to {_end(profile.high)}"
        words.append(f"{profile.name} {numbers.significant(profile.best)}, 95 percent {ends}.")
    return svg.picture(
        canvas.width,
        height,
        f"profiles-{canvas.name}",
        "How well the runs determine each parameter",
        " ".join(words),
        "".join(panels),
    )


def _end(value: float | None) -> str:
    return "open" if value is None else numbers.significant(value)


def _profile_panel(profile: Profile, canvas: Canvas) -> str:
    xs = [x for x, _ in profile.points]
    log = min(xs) > 0 and max(xs) > 8 * min(xs)
    frame = frame_for(
        canvas,
        scales.extent(xs, log=log, margin=0.02),
        (0.0, _HIGHEST_DROP),
        x_log=log,
        right=6,
    )
    ticks = (
        scales.log_ticks(frame.x, lambda v: f"{v:g}" if v < 1e4 else numbers.count(v), min_gap=40)
        if log
        else scales.linear_ticks(frame.x, 3)
    )
    limit = frame.y(LIMIT)
    parts = [
        frame.axes(
            ticks,
            scales.linear_ticks(frame.y, 3),
            _NAMES.get(profile.name, profile.name),
            "",
        ),
        svg.line(frame.x.start, limit, frame.x.end, limit, "guide"),
        frame.path(_cut(sorted(profile.points), _HIGHEST_DROP), "c4"),
    ]
    if frame.x.holds(profile.best):
        tip = f"best {numbers.significant(profile.best, 4)}"
        parts.append(svg.circle(frame.x(profile.best), frame.y(0.0), 4, "dot ct", tip))
    span = f"{_end(profile.low)} – {_end(profile.high)}"
    parts.append(svg.words(frame.x.end, frame.y.end - 12, span, "tick", text_anchor="end"))
    return "".join(parts)


def _cut(points: Sequence[tuple[float, float]], top: float) -> list[tuple[float, float]]:
    """The part of a line at or below `top`, its ends interpolated onto it."""
    kept: list[tuple[float, float]] = []
    for i, (x, y) in enumerate(points):
        if y <= top:
            kept.append((x, y))
            continue
        for j in (i - 1, i + 1):
            if 0 <= j < len(points) and points[j][1] <= top:
                x2, y2 = points[j]
                kept.append((x2 + (x - x2) * (top - y2) / (y - y2), top))
    return kept


# --- learning-rate basins ------------------------------------------------------------------


def basin_chart(basins: Sequence[Basin], canvas: Canvas) -> str:
    """Loss against learning rate at each setting, and how wide the good part is."""
    ordered = sorted(basins, key=lambda b: (b.params, b.tokens))
    colours = size_classes(b.params for b in ordered)
    xs = [x for b in ordered for x in (*(lr for lr, _ in b.runs), *b.good)]
    worst = max((e for b in ordered for _, e in b.runs), default=_HIGHEST_EXCESS)
    least = min([0.0, *(e for b in ordered for _, e in b.runs)])
    frame = frame_for(
        canvas,
        scales.extent(xs, log=True, margin=0.06),
        scales.extent([least, max(1.0, min(worst, _HIGHEST_EXCESS))], margin=0.06),
        right=20,
    )
    good = frame.y(GOOD_PERCENT)
    largest = ordered[-1]
    left, right = frame.x(largest.good[0]), frame.x(largest.good[1])
    parts = [
        svg.element(
            "rect",
            x=left,
            y=frame.y.end,
            width=right - left,
            height=frame.y.start - frame.y.end,
            class_="basin",
        ),
        frame.axes(
            scales.log_ticks(frame.x, _rate_label, min_gap=52),
            scales.linear_ticks(frame.y, 5),
            "learning rate",
            "loss above the best, %",
        ),
        svg.line(frame.x.start, good, frame.x.end, good, "guide"),
    ]
    for basin in ordered:
        colour = colours[basin.params]
        name = f"{numbers.count(basin.params)} on {numbers.count(basin.tokens)} tokens"
        line = "thick" if basin is largest else "faint"
        parts.append(
            frame.path(in_span(_cut(basin.valley, frame.y.high), frame), f"{colour} {line}")
        )
        for rate, excess in in_span(basin.runs, frame):
            tip = f"{name}, rate {rate:.3g}: {excess:+.2f} %"
            parts.append(svg.circle(*frame.at((rate, excess)), 3, f"dot {colour}", tip))
        tip = f"{name}: best rate {basin.best:.3g}"
        parts.append(svg.circle(frame.x(basin.best), frame.y(0.0), 4, f"hollow {colour}", tip))
    parts.extend(_basin_names(ordered, frame))
    hidden = sum(not frame.y.holds(e) for b in ordered for _, e in b.runs)
    if hidden:
        words = f"{hidden} runs lie higher"
        at = (frame.x.end, frame.y.end - 14)
        parts.append(svg.words(*at, words, "tick", text_anchor="end"))
    return svg.picture(
        canvas.width,
        canvas.height,
        f"basins-{canvas.name}",
        "Loss against the learning rate",
        f"{len(ordered)} settings. At the largest, {numbers.count(largest.params)} parameters on "
        f"{numbers.count(largest.tokens)} tokens, the best rate is {largest.best:.3g}; from "
        f"{largest.good[0]:.3g} to {largest.good[1]:.3g} at most {GOOD_PERCENT} percent is lost.",
        "".join(parts),
    )


def _basin_names(basins: Sequence[Basin], frame: Frame) -> Iterable[str]:
    """The size under the best rate of each setting, the largest first, where there is room."""
    taken: list[float] = []
    for basin in reversed(basins):
        x = frame.x(basin.best)
        if all(abs(x - other) >= 46 for other in taken):
            taken.append(x)
            name = numbers.count(basin.params)
            yield svg.words(x, frame.y(0.0) + 20, name, "label", text_anchor="middle")


def _rate_label(value: float) -> str:
    return f"{value:g}" if value >= 1e-3 else scales.compute_label(value)


# --- a run in flight -----------------------------------------------------------------------


def fan_chart(fan: Fan, canvas: Canvas) -> str:
    """The loss so far, and the band in which the end was foretold to lie at each moment."""
    band = fan.forecasts
    marks = [v for v in (fan.outcome, fan.target) if v is not None]
    if fan.promise is not None:
        marks += list(fan.promise)
    low = min([*marks, *(f[2] for f in band), *(v for _, v in fan.seen)])
    top = max([*marks, *(f[3] for f in band), _median_late(fan)])
    frame = frame_for(
        canvas, (0.0, fan.end), scales.extent([low, top], margin=0.08), x_log=False, right=30
    )
    parts = [
        frame.axes(
            scales.linear_ticks(frame.x, 3 if canvas.narrow else 6),
            scales.linear_ticks(frame.y, 5 if canvas.narrow else 7),
            "steps",
            "loss, nats/token",
        ),
        frame.area([(s, lo, hi) for s, _, lo, hi in band], "ct"),
        frame.path([(s, v) for s, v, _, _ in band], "ct dashed"),
        frame.path(in_span(fan.seen, frame), "c4"),
    ]
    for step, value, lo, hi in band:
        tip = f"at {step / fan.end:.0%}: {numbers.with_interval(value, lo, hi)}"
        parts.append(svg.circle(*frame.at((step, value)), 3.5, "dot ct", tip))
    if fan.target is not None:
        y = frame.y(fan.target)
        parts.append(svg.line(frame.x.start, y, frame.x.end, y, "guide"))
        parts.append(svg.words(frame.x.start + 6, y - 6, f"target {fan.target:.3f}", "tick"))
    parts.append(_fan_ends(fan, frame))
    last = band[-1] if band else None
    said = (
        ""
        if last is None
        else f" At {last[0] / fan.end:.0%} of the steps it foretells "
        f"{numbers.with_interval(*last[1:])} ({fan.level:.0%})."
    )
    ended = "" if fan.outcome is None else f" It ended at {fan.outcome:.4f}."
    return svg.picture(
        canvas.width,
        canvas.height,
        f"fan-{canvas.name}",
        f"What {fan.run_id} foretold of its own end",
        f"{len(fan.seen)} measured points, {len(band)} forecasts.{said}{ended}",
        "".join(parts),
    )


def _median_late(fan: Fan) -> float:
    """The loss from which the curve is drawn: what comes before is the fall of the first steps."""
    late = [v for s, v in fan.seen if s >= 0.04 * fan.end] or [v for _, v in fan.seen]
    return max(late)


def _fan_ends(fan: Fan, frame: Frame) -> str:
    """The promise as a bar and the outcome as a dot, at the schedule's last step."""
    x, parts = frame.x.end, []
    if fan.promise is not None:
        value, low, high = fan.promise
        parts += [
            svg.line(x + 10, frame.y(low), x + 10, frame.y(high), "bar c3"),
            svg.circle(x + 10, frame.y(value), 5, "hollow c3", f"promised {value:.4f}"),
        ]
    if fan.outcome is None and fan.forecasts:
        step, value, low, high = fan.forecasts[-1]
        said = f"foretold at {step / fan.end:.0%}: {numbers.with_interval(value, low, high)}"
        parts += [
            svg.line(x, frame.y(low), x, frame.y(high), "bar ct"),
            svg.circle(x, frame.y(value), 5, "hollow ct", said),
            svg.words(x - 12, frame.y(high) - 10, said, "note", text_anchor="end"),
        ]
    if fan.outcome is not None:
        tip = f"ended at {fan.outcome:.4f}"
        parts.append(svg.circle(x, frame.y(fan.outcome), 5, "filled ct", tip))
        at = (x - 8, frame.y(fan.outcome) + 20)
        parts.append(svg.words(*at, f"● {tip}", "note", text_anchor="end"))
    return "".join(parts)


# --- calibration ---------------------------------------------------------------------------


def calibration_chart(coverages: Sequence[Coverage], canvas: Canvas) -> str:
    """How often intervals held against how often they were to hold, with 90 % Wilson bars."""
    side = min(canvas.width, canvas.height)
    frame = frame_for(
        Canvas(side, side, canvas.name), (0.0, 1.0), (0.0, 1.0), x_log=False, right=30
    )
    ticks = [scales.Tick(v / 4, f"{25 * v}\u202f%", True) for v in range(5)]
    parts = [
        frame.axes(ticks, ticks, "promised", "held"),
        frame.path([(0.0, 0.0), (1.0, 1.0)], "ct dashed"),
    ]
    ordered = sorted(coverages, key=lambda c: c.level)
    shown = [c for c in ordered if c.scored]
    parts.append(frame.path([(c.level, c.held / c.scored) for c in shown], "c4 faint"))
    for coverage in shown:
        x, y = frame.at((coverage.level, coverage.held / coverage.scored))
        low, high = (frame.y(v) for v in wilson(coverage.held, coverage.scored))
        tip = f"{coverage.held} of {coverage.scored} held at {coverage.level:.0%}"
        parts += [svg.line(x, low, x, high, "bar c4"), svg.circle(x, y, 5, "filled c4", tip)]
    return svg.picture(
        canvas.width,
        canvas.height,
        f"calibration-{canvas.name}",
        "How often the intervals held",
        " ".join(f"At {c.level:.0%}, {c.held} of {c.scored} held." for c in shown)
        or "Nothing has been scored yet.",
        "".join(parts),
    )


def wilson(held: int, scored: int, level: float = 0.9) -> tuple[float, float]:
    """Interval of a share from a count (Wilson 1927, score interval)."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = held / scored
    centre = (share + z * z / (2 * scored)) / (1 + z * z / scored)
    half = z / (1 + z * z / scored)
    half *= math.sqrt(share * (1 - share) / scored + z * z / (4 * scored * scored))
    return max(0.0, centre - half), min(1.0, centre + half)


def backtest_chart(backtest: Backtest, canvas: Canvas) -> str:
    """Each held-out run: measured against its forecast in percent, on its interval."""
    points = backtest.points
    # Compute is 6·N·D here, as in `reach`; a table's own FLOPs may count more.
    largest = max(p.params * p.tokens for p in points) / backtest.reach
    rows = [(p, p.params * p.tokens / largest, 100 * (p.loss / p.predicted - 1)) for p in points]
    ends = [(100 * (p.low / p.predicted - 1), 100 * (p.high / p.predicted - 1)) for p in points]
    frame = frame_for(
        canvas,
        scales.extent([x for _, x, _ in rows], log=True, margin=0.05),
        scales.extent([v for pair in ends for v in pair] + [e for *_, e in rows], margin=0.06),
        right=20,
    )
    zero = frame.y(0)
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, lambda v: f"{v:g}×", min_gap=34),
            scales.linear_ticks(frame.y, 6),
            "compute, times the largest fitted run",
            "measured − foretold, %",
        )
    ]
    for (_, x, _), (low, high) in zip(rows, ends, strict=True):
        at = frame.x(x)
        parts.append(svg.line(at, frame.y(low), at, frame.y(high), "bar c2 faint"))
    parts.append(svg.line(frame.x.start, zero, frame.x.end, zero, "zero"))
    for point, x, error in rows:
        tip = f"{point.run_id}: {numbers.signed_percent(error)}"
        colour = "c4" if point.held else "ct"
        parts.append(svg.circle(frame.x(x), frame.y(error), 3.5, f"dot {colour}", tip))
    held = sum(p.held for p in points)
    return svg.picture(
        canvas.width,
        canvas.height,
        f"backtest-{canvas.name}",
        f"Forecasts of the {backtest.form} form and what was measured",
        f"{backtest.n_fit} runs fitted, {len(points)} scored at up to {backtest.reach:.3g} times "
        f"the compute: median error {backtest.median_error_percent:.2f} percent, {held} inside "
        f"their {backtest.level:.0%} interval.",
        "".join(parts),
    )
