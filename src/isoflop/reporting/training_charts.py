"""Charts of runs while they train: loss curves and their collapse; not the ladder's end points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for, in_span, size_classes
from isoflop.reporting.records import Curve, Mark
from isoflop.reporting.svg import Frame


def loss_chart(curves: Sequence[Curve], canvas: Canvas) -> str:
    """Loss of every run against tokens, both logarithmic; the target stands out."""
    colours = size_classes(c.params for c in curves if c.params is not None and not c.is_target)
    xs = [p.tokens for c in curves for p in c.training] + [t for c in curves for t, _ in c.held_out]
    ys = [p.mean for c in curves for p in c.training] + [v for c in curves for _, v in c.held_out]
    frame = frame_for(
        canvas,
        scales.extent(xs, log=True, margin=0.01),
        scales.extent(ys, log=True, margin=0.04),
        y_log=True,
        right=64,
    )
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.count_label, min_gap=44),
            scales.value_ticks(frame.y, 6),
            "tokens seen",
            "loss, nats/token",
        )
    ]
    for curve in sorted(curves, key=lambda c: c.is_target):  # the target is drawn last, on top
        colour = "ct" if curve.is_target else colours.get(curve.params or 0, "c0")
        if curve.is_target:
            bounds = frame.y.low, frame.y.high
            envelope = [
                (p.tokens, max(p.low, bounds[0]), min(p.high, bounds[1])) for p in curve.training
            ]
            parts.append(frame.area(envelope, colour))
        means = in_span([(p.tokens, p.mean) for p in curve.training], frame)
        parts.append(frame.path(means, f"{colour} {'thick' if curve.is_target else 'thin'}"))
        parts += [_mark(mark, frame) for mark in curve.marks if frame.x.holds(mark.tokens)]
        shown = curve.held_out if curve.is_target or len(curves) == 1 else curve.held_out[-1:]
        for point in in_span(shown, frame):
            tip = f"{curve.name}: {point[1]:.4f} after {numbers.count(point[0])} tokens"
            parts.append(svg.circle(*frame.at(point), 2.5, f"dot {colour}", tip))
    parts.extend(_end_labels(curves, frame))
    lines = sum(c.lines_read for c in curves)
    return svg.picture(
        canvas.width,
        canvas.height,
        f"loss-{canvas.name}",
        "Loss while training",
        f"{len(curves)} runs, drawn from {lines:,} logged lines; dots are held-out loss. "
        + "; ".join(_curve_end(c) for c in curves if c.is_target),
        "".join(parts),
    )


def _mark(mark: Mark, frame: Frame) -> str:
    """A short stroke at the foot of the chart where something went wrong."""
    x, foot = frame.x(mark.tokens), frame.y.start
    stroke = svg.line(x, foot, x, foot - 12, "mishap")
    tip = svg.element("title", svg.text(f"step {mark.step:,}: {mark.event} {mark.what}"))
    return svg.element("g", tip + stroke)


def _curve_end(curve: Curve) -> str:
    last = curve.held_out[-1][1] if curve.held_out else curve.training[-1].mean
    return f"{curve.name} ended at {last:.3f}"


def _end_labels(curves: Sequence[Curve], frame: Frame) -> Iterable[str]:
    """The size at the right end of its longest run, pushed apart where they would touch."""
    longest: dict[tuple[float | None, bool], tuple[float, float]] = {}
    for curve in curves:
        points = [(p.tokens, p.mean) for p in curve.training] or list(curve.held_out)
        points = in_span(points, frame)
        if points:
            key = (curve.params, curve.is_target)
            longest[key] = max(longest.get(key, (0.0, 0.0)), points[-1])
    keys = list(longest)
    ys = scales.spread_labels(
        [frame.y(longest[k][1]) for k in keys], 14, frame.y.end, frame.y.start
    )
    for (params, is_target), y in zip(keys, ys, strict=True):
        said = numbers.count(params) if params is not None else "run"
        x = frame.x(longest[(params, is_target)][0]) + 8
        yield svg.words(x, y + 4, said, "label strong" if is_target else "label")


def collapse_chart(curves: Sequence[Curve], canvas: Canvas) -> str:
    """Every run's loss above its floor, as a share of its last, against the share of its tokens.

    Runs whose learning rate and batch follow one good rule fall on one line (after Qiu et al. 2025,
    "Scaling collapse reveals universal dynamics in compute-optimally trained neural networks").
    They subtract one floor and compare runs of equal tokens per parameter. A ladder has other
    ratios too, so ours subtracts what the law gives each size for endless data; what is left then
    falls as one power of the tokens.
    """
    colours = size_classes(c.params for c in curves if c.params is not None and not c.is_target)
    lines = [(c, normalised(c)) for c in curves]
    lines = [(c, points) for c, points in lines if len(points) > 1]
    top = max((y for _, points in lines for x, y in points if x >= 0.1), default=2.0)
    frame = frame_for(canvas, (0.0, 1.0), (0.9, max(1.2, top * 1.03)), x_log=False)
    parts = [
        frame.axes(
            scales.linear_ticks(frame.x, 5),
            scales.linear_ticks(frame.y, 5),
            "share of the run’s tokens",
            "loss above the size’s floor ÷ its last",
        )
    ]
    for curve, points in sorted(lines, key=lambda pair: pair[0].is_target):
        colour = "ct thick" if curve.is_target else colours.get(curve.params or 0, "c0") + " thin"
        parts.append(frame.path(in_span(points, frame), colour))
    return svg.picture(
        canvas.width,
        canvas.height,
        f"collapse-{canvas.name}",
        "Normalised loss curves",
        f"{len(lines)} runs; at half of their tokens they lie between "
        f"{_spread_at_half([points for _, points in lines])} times their last value.",
        "".join(parts),
    )


def normalised(curve: Curve) -> list[tuple[float, float]]:
    """(share of tokens, (loss − floor) / (last loss − floor)); empty where that has no meaning."""
    floor = curve.floor
    points = list(curve.held_out)
    if len(points) < 5:
        points = [(p.tokens, p.mean) for p in curve.training]
    if floor is None or len(points) < 5 or not points[-1][1] > floor:
        return []
    tokens, last = points[-1]
    return [(t / tokens, (v - floor) / (last - floor)) for t, v in points]


def _spread_at_half(lines: Sequence[Sequence[tuple[float, float]]]) -> str:
    values = [min(points, key=lambda p: abs(p[0] - 0.5))[1] for points in lines]
    return f"{min(values):.2f} and {max(values):.2f}" if values else "0 and 0"
