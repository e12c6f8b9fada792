"""Charts of the promise and the ladder: values in, one SVG string out; reads no files.

Each chart is drawn for a `Canvas`; the page draws everything once for wide and once for narrow
screens, because text inside an SVG would otherwise shrink with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isoflop.core.ledger import Promise
from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.records import Law, Rung, Target, Verdict
from isoflop.reporting.scales import Scale
from isoflop.reporting.svg import Frame

_MOST_TIPS = 120
MOST_SIZES = 12
"""Sizes that a legend names and a ladder draws the law for."""
RAMP_STEPS = 8
"""Colours from the smallest to the largest size: classes c0 … c7 of the style sheet."""


@dataclass(frozen=True)
class Canvas:
    """How large a chart is drawn, in pixels."""

    width: float
    height: float
    name: str
    """Part of every id, so that two drawings of one chart can stand in one page."""

    @property
    def narrow(self) -> bool:
        """Whether there is room for few words only."""
        return self.width < 500


def few_of(values: Sequence[float], most: int) -> list[float]:
    """The values, or where there are more than `most`, as many spread over their ranks."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def size_classes(sizes: Iterable[float]) -> dict[float, str]:
    """One colour class per model size, spread over the ramp by rank."""
    ordered = sorted(set(sizes))
    span = max(1, len(ordered) - 1)
    return {s: f"c{round(i * (RAMP_STEPS - 1) / span)}" for i, s in enumerate(ordered)}


def frame_for(
    canvas: Canvas,
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    x_log: bool = True,
    y_log: bool = False,
    left: float = 44,
    right: float = 16,
) -> Frame:
    """The plotting area for data spans `x` and `y`, with room for the axes' words."""
    return Frame(
        canvas.width,
        canvas.height,
        Scale(*x, start=left, end=canvas.width - right, log=x_log),
        Scale(*y, start=canvas.height - 48, end=30, log=y_log),
    )


def in_span(points: Iterable[tuple[float, float]], frame: Frame) -> list[tuple[float, float]]:
    """The points that fall inside the frame."""
    return [(x, y) for x, y in points if frame.x.holds(x) and frame.y.holds(y)]


# --- the promise and its outcome -----------------------------------------------------------


def promise_strip(verdict: Verdict, canvas: Canvas) -> str:
    """The promised interval as a bar on a loss axis, the promise hollow, the outcome filled."""
    known = [verdict.low, verdict.high, verdict.value]
    if verdict.outcome is not None:
        known.append(verdict.outcome)
    span = scales.extent(known, margin=0.35)
    scale = Scale(*span, start=4, end=canvas.width - 4)
    axis = canvas.height - 26
    middle = axis - 30
    parts = [svg.line(scale.start, axis, scale.end, axis, "axis")]
    for tick in scales.linear_ticks(scale, 4 if canvas.narrow else 8):
        x = scale(tick.value)
        parts.append(svg.line(x, axis, x, axis + 5, "axis"))
        if scale.start + 14 < x < scale.end - 14:
            parts.append(svg.words(x, axis + 20, tick.label, "tick", text_anchor="middle"))
    low, high = scale(verdict.low), scale(verdict.high)
    parts.append(
        svg.element(
            "rect", x=low, y=middle - 9, width=high - low, height=18.0, rx=9.0, class_="interval"
        )
    )
    promised = scale(verdict.value)
    parts.append(svg.circle(promised, middle, 9, "hollow ct", "promised"))
    decimals = numbers.decimals_for((verdict.high - verdict.low) / 2)
    labels = [(promised, f"promised {verdict.value:.{decimals}f}", "note")]
    if verdict.outcome is not None:
        ended = scale(verdict.outcome)
        parts.append(svg.circle(ended, middle, 6, "filled ct", "measured"))
        labels.append((ended, f"ended at {verdict.outcome:.{decimals}f}", "note strong"))
    parts.extend(_labels_above(labels, middle - 20, canvas.width))
    outcome = "not known yet" if verdict.outcome is None else f"{verdict.outcome:.{decimals}f}"
    description = (
        f"Loss axis. Promised {verdict.value:.{decimals}f}, interval {verdict.low:.{decimals}f} "
        f"to {verdict.high:.{decimals}f} at {verdict.level:.0%}. Outcome {outcome}."
    )
    key = f"strip-{canvas.name}"
    return svg.picture(
        canvas.width, canvas.height, key, "Promise and outcome", description, "".join(parts)
    )


def _labels_above(labels: Sequence[tuple[float, str, str]], y: float, width: float) -> list[str]:
    """Words above their places, pushed apart sideways where two would touch."""
    widest = max(len(content) for _, content, _ in labels) * 8.6 + 14
    places = scales.spread_labels([x for x, _, _ in labels], widest, widest / 2, width - widest / 2)
    return [
        svg.words(place, y, content, class_, text_anchor="middle")
        for place, (_, content, class_) in zip(places, labels, strict=True)
    ]


def promise_mark(promise: Promise, key: str) -> str:
    """A promise in a line of a table: the interval fills the middle, a dot where it ended."""
    width, height = 120.0, 18.0
    half = max(promise.high - promise.low, 1e-300) / 2
    centre = (promise.high + promise.low) / 2

    def place(value: float) -> float:
        return width / 2 + max(-1.9, min(1.9, (value - centre) / half)) * width / 4.2

    middle = height / 2
    parts = [
        svg.line(0, middle, width, middle, "axis"),
        svg.element(
            "rect",
            x=place(promise.low),
            y=middle - 5,
            width=place(promise.high) - place(promise.low),
            height=10.0,
            rx=5.0,
            class_="interval",
        ),
        svg.circle(place(promise.value), middle, 4, "hollow ct"),
    ]
    if promise.outcome is not None:
        parts.append(svg.circle(place(promise.outcome), middle, 4, "filled ct"))
    said = {True: "The outcome lies inside", False: "The outcome lies outside", None: "Still open"}
    title = f"{promise.quantity}: interval and outcome"
    return svg.picture(width, height, key, title, f"{said[promise.held]}.", "".join(parts))


# --- the ladder ----------------------------------------------------------------------------


def ladder_chart(
    rungs: Sequence[Rung],
    law: Law | None,
    target: Target | None,
    verdict: Verdict | None,
    canvas: Canvas,
) -> str:
    """Loss against compute: measured rungs, the law for each size, the target and its interval."""
    colours = size_classes(r.params for r in rungs)
    fits = law.fits if law else ()
    path = law.path if law else ()
    x_values = [r.flops for r in rungs] + [c for f in fits for c, _ in f.points]
    y_values = [r.loss for r in rungs] + [v for f in fits for _, v in f.points]
    y_values += [v for _, _, low, high in path for v in (low, high)]
    if target and verdict:
        x_values.append(target.flops)
        y_values += [verdict.low, verdict.high]
        y_values += [verdict.outcome] if verdict.outcome is not None else []
    frame = frame_for(
        canvas,
        scales.extent(x_values, log=True, margin=0.07),
        scales.extent(y_values, margin=0.06),
        right=26,
    )
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.compute_label, min_gap=58),
            scales.linear_ticks(frame.y, 5 if canvas.narrow else 7),
            "training compute, FLOPs",
            "loss, nats/token",
        ),
        frame.area([(c, low, high) for c, _, low, high in path], "ct"),
        frame.path([(c, loss) for c, loss, _, _ in path], "ct dashed"),
    ]
    for fit in fits:
        parts.append(frame.path(fit.points, f"fit {colours.get(fit.params, 'c0')}"))
    dots = [(r, frame.at((r.flops, r.loss)), f"loss {r.loss:.4f}") for r in rungs]
    parts.extend(run_dots(dots, colours))
    parts.extend(_size_labels(_line_ends(law, rungs), frame))
    if target and verdict:
        drawn = [(r.flops, r.loss) for r in rungs] + [(c, high) for c, _, _, high in path]
        drawn += [point for fit in fits for point in fit.points]
        parts.append(_target_mark(target, verdict, [frame.at(p) for p in drawn], frame))
    return svg.picture(
        canvas.width,
        canvas.height,
        f"ladder-{canvas.name}",
        "Loss against training compute",
        _ladder_description(rungs, target, verdict),
        "".join(parts),
    )


def _line_ends(law: Law | None, rungs: Sequence[Rung]) -> dict[float, tuple[float, float]]:
    """Where each size ends at its most compute: on its fitted line, else at its last rung."""
    ends = {
        size: max((r.flops, r.loss) for r in rungs if r.params == size)
        for size in {r.params for r in rungs}
    }
    for fit in law.fits if law else ():
        if fit.points:
            ends[fit.params] = fit.points[-1]
    return ends


def run_dots(
    places: Sequence[tuple[Rung, tuple[float, float], str]],
    colours: dict[float, str],
    radius: float = 4,
) -> Iterable[str]:
    """A dot for each (rung, pixel, words); a crowd becomes one path a size, without words."""
    if len(places) <= _MOST_TIPS:
        for rung, (x, y), said in places:
            size, tokens = numbers.count(rung.params), numbers.count(rung.tokens)
            tip = f"{size} parameters, {tokens} tokens: {said}"
            yield svg.circle(x, y, radius, f"dot {colours[rung.params]}", tip)
        return
    for params, colour in colours.items():
        these = [place for rung, place, _ in places if rung.params == params]
        data = "".join(f"M{svg.number(x)} {svg.number(y)}h0" for x, y in these)
        yield svg.element("path", d=data, class_=f"crowd {colour}")


def _size_labels(ends: dict[float, tuple[float, float]], frame: Frame) -> Iterable[str]:
    # A size's line ends above all larger sizes at equal compute: the room is to its right.
    placed: list[tuple[float, float]] = []
    for size in sorted(ends):
        x, y = frame.at(ends[size])
        crowded = any(abs(x - x2) < 48 and abs(y - y2) < 14 for x2, y2 in placed)
        if not crowded:
            placed.append((x, y))
            yield svg.words(x + 7, y + 3, numbers.count(size), "label")


def _target_mark(
    target: Target, verdict: Verdict, drawn: Sequence[tuple[float, float]], frame: Frame
) -> str:
    """The interval, the ring and the dot, with their words above everything drawn near them."""
    x, ring = frame.at((target.flops, verdict.value))
    low, high = frame.y(verdict.low), frame.y(verdict.high)
    decimals = numbers.decimals_for((verdict.high - verdict.low) / 2)
    promised = numbers.with_interval(verdict.value, verdict.low, verdict.high)
    lines = [
        (f"target, {numbers.count(target.params)}", "note strong"),
        (f"○ promised {promised}", "note"),
    ]
    parts = [
        svg.line(x, low, x, high, "bar ct"),
        svg.line(x - 6, low, x + 6, low, "bar ct"),
        svg.line(x - 6, high, x + 6, high, "bar ct"),
        svg.circle(x, ring, 7.5, "hollow ct", f"promised {verdict.value:.4f}"),
    ]
    top = min(high, ring - 8)
    if verdict.outcome is not None:
        dot = frame.y(verdict.outcome)
        top = min(top, dot - 5)
        parts.append(svg.circle(x, dot, 4.5, "filled ct", f"ended at {verdict.outcome:.4f}"))
        lines.append((f"● ended at {verdict.outcome:.{decimals}f}", "note"))
    edge = frame.x.end + 14
    left = edge - 8.6 * max(len(content) for content, _ in lines)
    # Loss falls with compute, so the corner above the target is free: leave what is drawn below.
    roof = min([top, *(y for px, y in drawn if px >= left - 8)])
    last = max(frame.y.end + 18.0 * len(lines), roof - 22)
    if last + 6 < top:
        parts.insert(0, svg.line(x, last + 6, x, top, "leader"))
    for i, (content, class_) in enumerate(reversed(lines)):
        parts.append(svg.words(edge, last - 18 * i, content, class_, text_anchor="end"))
    return "".join(parts)


def _ladder_description(
    rungs: Sequence[Rung], target: Target | None, verdict: Verdict | None
) -> str:
    sizes = sorted({r.params for r in rungs})
    said = ""
    if rungs:
        said = (
            f"{len(rungs)} runs of {len(sizes)} sizes between {numbers.count(sizes[0])} and "
            f"{numbers.count(sizes[-1])} parameters; loss falls from "
            f"{max(r.loss for r in rungs):.3f} to {min(r.loss for r in rungs):.3f}. "
        )
    if target and verdict:
        ended = "" if verdict.outcome is None else f" It ended at {verdict.outcome:.3f}."
        said += (
            f"The target, {numbers.scientific(target.flops)} FLOPs, was promised "
            f"{verdict.value:.3f}, between {verdict.low:.3f} and {verdict.high:.3f}.{ended}"
        )
    return said


def residual_chart(
    rungs: Sequence[Rung], target: Target | None, verdict: Verdict | None, canvas: Canvas
) -> str:
    """How far each measured loss lies from the law, in percent, against compute."""
    colours = size_classes(r.params for r in rungs)
    known = [(r, r.residual_percent) for r in rungs]
    shown = [(r, p) for r, p in known if p is not None]
    y_values = [0.0, *(p for _, p in shown)]
    x_values = [r.flops for r, _ in shown]
    if target and verdict:
        x_values.append(target.flops)
        edges = (verdict.low, verdict.high, verdict.outcome)
        y_values += [100 * (v / verdict.value - 1) for v in edges if v is not None]
    frame = frame_for(
        canvas,
        scales.extent(x_values, log=True, margin=0.07),
        scales.extent(y_values, margin=0.1),
        right=26,
    )
    zero = frame.y(0)
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.compute_label, min_gap=58),
            scales.linear_ticks(frame.y, 4),
            "training compute, FLOPs",
            "measured − predicted, %",
        ),
        svg.line(frame.x.start, zero, frame.x.end, zero, "zero"),
    ]
    dots = [(r, frame.at((r.flops, p)), numbers.signed_percent(p)) for r, p in shown]
    if len(dots) <= _MOST_TIPS:
        parts += [svg.line(x, zero, x, y, f"stem {colours[r.params]}") for r, (x, y), _ in dots]
    parts.extend(run_dots(dots, colours))
    if target and verdict:
        x = frame.x(target.flops)
        ends = [frame.y(100 * (v / verdict.value - 1)) for v in (verdict.low, verdict.high)]
        parts.append(svg.line(x, ends[0], x, ends[1], "bar ct"))
        parts.extend(svg.line(x - 5, end, x + 5, end, "bar ct") for end in ends)
        parts.append(svg.circle(x, zero, 7.5, "hollow ct", "promised"))
        if verdict.outcome is not None:
            off = 100 * (verdict.outcome / verdict.value - 1)
            tip = f"target: {numbers.signed_percent(off)}"
            parts.append(svg.circle(x, frame.y(off), 4.5, "filled ct", tip))
    largest = max((abs(p) for _, p in shown), default=0.0)
    return svg.picture(
        canvas.width,
        canvas.height,
        f"residuals-{canvas.name}",
        "Distance of each run from the law",
        f"{len(shown)} runs; the largest residual of a rung is {largest:.2f} percent.",
        "".join(parts),
    )
