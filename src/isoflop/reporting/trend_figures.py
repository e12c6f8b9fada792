"""Figures of one quantity against another: trends, distances from a law, loss curves; SVG out.

Not for computing what they show (law_trends) nor for loss surfaces (law_figures).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import RAMP_STEPS, Canvas, frame_for, in_span
from isoflop.reporting.law_figures import arrow, asked_mark, loss_extent
from isoflop.reporting.law_records import LossCurve, Misfit, Trend
from isoflop.reporting.svg import Frame, Point

_MOST_DOTS = 400


def trend_chart(trend: Trend, canvas: Canvas) -> str:
    """A law's line with its band, the runs as dots, and what was asked for as a ring with a bar."""
    xs = [x for x, *_ in trend.points] + [x for x, *_ in trend.runs]
    ys = [v for _, value, low, high in trend.points for v in (value, low, high)]
    asked = () if trend.asked is None else trend.asked
    frame = frame_for(
        canvas,
        scales.extent([*xs, *asked[:1]], log=trend.log, margin=0.02),
        loss_extent([*ys, *asked[1:]], [y for _, y, _ in trend.runs]),
        x_log=trend.log,
        left=52,
        right=26,
    )
    inside = [p for p in trend.points if _within(p[0], trend)]
    below = [p for p in trend.points if trend.fitted and p[0] <= trend.fitted[0] * 1.0001]
    above = [p for p in trend.points if trend.fitted and p[0] >= trend.fitted[1] * 0.9999]
    band = [(x, max(low, frame.y.low), min(high, frame.y.high)) for x, _, low, high in trend.points]
    parts = [
        frame.axes(
            _x_ticks(frame, trend),
            scales.linear_ticks(frame.y, 5 if canvas.narrow else 7),
            trend.x_name,
            trend.y_name,
        ),
        frame.area([b for b in band if b[1] <= b[2]], "ct"),
        *_run_dots(trend.runs, frame),
        *(frame.path(_shown(part, frame), "ct thick dashed") for part in (below, above)),
        frame.path(_shown(inside, frame), "ct thick"),
    ]
    if trend.fitted is not None and frame.x.low < trend.fitted[1] < frame.x.high * 0.98:
        parts.append(_edge(trend.fitted[1], "last run", frame))
    said = ""
    if trend.asked is not None:
        parts.append(asked_mark(trend.asked, frame))
        said = f" Asked for: {numbers.significant(trend.asked[1], 4)}."
    first, last = trend.points[0], trend.points[-1]
    return svg.picture(
        canvas.width,
        canvas.height,
        f"trend-{canvas.name}",
        trend.title,
        f"{len(trend.runs)} runs. The law goes from {numbers.significant(first[1], 4)} at "
        f"{numbers.significant(first[0])} to {numbers.significant(last[1], 4)} at "
        f"{numbers.significant(last[0])}, {trend.level:.0%} band.{said}",
        "".join(parts),
    )


def _within(x: float, trend: Trend) -> bool:
    return trend.fitted is None or trend.fitted[0] * 0.9999 <= x <= trend.fitted[1] * 1.0001


def _shown(points: Sequence[tuple[float, float, float, float]], frame: Frame) -> list[Point]:
    return in_span([(x, value) for x, value, _, _ in points], frame)


def _x_ticks(frame: Frame, trend: Trend) -> tuple[scales.Tick, ...]:
    if not trend.log:
        return scales.linear_ticks(frame.x, 6)
    compute = "FLOPs" in trend.x_name
    label = scales.compute_label if compute else scales.count_label
    return scales.log_ticks(frame.x, label, min_gap=58 if compute else 44)


def _run_dots(runs: Sequence[tuple[float, float, str]], frame: Frame) -> Iterable[str]:
    for x, y, tip in runs[:_MOST_DOTS]:
        if frame.y.holds(y):
            yield svg.circle(*frame.at((x, y)), 3, "dot c4", tip)
        else:
            yield arrow(frame, x, y, "c4", f"off the scale: {tip}")


def _edge(x: float, words: str, frame: Frame) -> str:
    """A dotted line where the runs end."""
    at = frame.x(x)
    right = at > frame.x.start + 0.75 * (frame.x.end - frame.x.start)
    side = {"text_anchor": "end"} if right else {}
    said = svg.words(at + (-6 if right else 6), frame.y.end + 4, words, "tick halo", **side)
    return svg.line(at, frame.y.start, at, frame.y.end - 8, "guide") + said


# --- distances from a law ------------------------------------------------------------------


def misfit_by_value_chart(misfit: Misfit, canvas: Canvas) -> str:
    """How far each measured value lies from the law, group by group."""
    points = [p for _, group in misfit.groups for p in group]
    frame = frame_for(
        canvas,
        scales.extent([x for x, _, _ in points], log=misfit.log, margin=0.04),
        scales.usual_extent([0.0, *(y for _, y, _ in points)], margin=0.1),
        x_log=misfit.log,
        left=52,
        right=112 if not canvas.narrow else 26,
    )
    zero = frame.y(0.0)
    ticks = (
        scales.log_ticks(frame.x, scales.compute_label, min_gap=58)
        if misfit.log
        else scales.linear_ticks(frame.x, 6)
    )
    parts = [
        frame.axes(ticks, scales.linear_ticks(frame.y, 6), misfit.x_name, misfit.y_name),
        svg.line(frame.x.start, zero, frame.x.end, zero, "zero"),
    ]
    for i, (_, group) in enumerate(misfit.groups):
        for x, y, tip in group:
            if frame.y.holds(y):
                parts.append(svg.circle(*frame.at((x, y)), 3, f"dot {_colour(i, misfit)}", tip))
            else:
                colour = _colour(i, misfit)
                parts.append(arrow(frame, x, y, colour, f"off the scale: {tip}"))
    if not canvas.narrow:
        parts.extend(_group_names(misfit, frame))
    typical = sorted(abs(y) for _, y, _ in points)
    middle = numbers.significant(typical[len(typical) // 2], 2) if typical else "0"
    return svg.picture(
        canvas.width,
        canvas.height,
        f"distance-{canvas.name}",
        "Distance of the measured values from the law",
        f"{len(points)} values in {len(misfit.groups)} groups; the median distance is {middle} "
        f"({misfit.y_name}).",
        "".join(parts),
    )


def _colour(i: int, misfit: Misfit) -> str:
    span = max(1, len(misfit.groups) - 1)
    return f"c{round(i * (RAMP_STEPS - 1) / span)}" if len(misfit.groups) > 1 else "c4"


def _group_names(misfit: Misfit, frame: Frame) -> Iterable[str]:
    """Names of the groups in their colours, at the right."""
    room = int((frame.y.start - frame.y.end) / 17)
    for i, (name, _) in enumerate(misfit.groups[:room]):
        y = frame.y.end + 17 * i + 4
        colour = _colour(i, misfit)
        shown = name if len(name) <= 14 else f"{name[:13]}…"
        yield svg.circle(frame.x.end + 10, y - 4, 3.5, f"dot {colour}", name)
        yield svg.words(frame.x.end + 18, y, shown, "tick")


# --- loss curves ---------------------------------------------------------------------------


def curves_chart(curves: Sequence[LossCurve], canvas: Canvas) -> str:
    """Measured loss curves as lines and the law dashed over them."""
    end = max(step for c in curves for step, _ in c.seen)
    late = [v for c in curves for s, v in (*c.seen, *c.law) if s >= 0.06 * end]
    frame = frame_for(
        canvas,
        (0.0, end),
        scales.extent(late, margin=0.05),
        x_log=False,
        left=52,
        right=26 if canvas.narrow else 150,
    )
    parts = [
        frame.axes(
            scales.linear_ticks(frame.x, 3 if canvas.narrow else 6),
            scales.linear_ticks(frame.y, 5 if canvas.narrow else 7),
            "steps",
            "loss, nats/token",
        )
    ]
    span = max(1, len(curves) - 1)
    for i, curve in enumerate(curves):
        colour = f"c{round(i * (RAMP_STEPS - 1) / span)}"
        parts.append(frame.path(in_span(curve.seen, frame), f"{colour} thin"))
        parts.append(frame.path(in_span(curve.law, frame), "ct dashed"))
    if not canvas.narrow:
        parts.extend(_curve_names(curves, frame))
    return svg.picture(
        canvas.width,
        canvas.height,
        f"curves-{canvas.name}",
        "Loss curves and the law",
        f"{len(curves)} curves. "
        + " ".join(
            f"{c.name} ended at {c.seen[-1][1]:.4f}, the law at {c.law[-1][1]:.4f}." for c in curves
        ),
        "".join(parts),
    )


def _curve_names(curves: Sequence[LossCurve], frame: Frame) -> Iterable[str]:
    """Each name beside the end of its curve, pushed apart where several end at the right."""
    ends = [frame.at(c.seen[-1]) for c in curves]
    right = [i for i, (x, _) in enumerate(ends) if x > frame.x.end - 40]
    ys = scales.spread_labels([ends[i][1] for i in right], 15, frame.y.end, frame.y.start)
    places = {i: (frame.x.end + 8, y + 4) for i, y in zip(right, ys, strict=True)}
    for i, curve in enumerate(curves):
        shown = curve.name if len(curve.name) <= 20 else f"{curve.name[:19]}…"
        x, y = places.get(i, (ends[i][0] + 6, ends[i][1] + 4))
        yield svg.words(x, y, shown, "tick halo")
