"""Figures of a fitted law: frontier, IsoFLOP valleys, allocation, residuals; values in, SVG out.

Not for computing what they show (law_data) nor for how sure a fit is (fit_figures).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for, in_span, run_dots, size_classes
from isoflop.reporting.law_records import Budget, Division, Frontier, KnownRun
from isoflop.reporting.records import Rung
from isoflop.reporting.svg import Frame, Point

_FULL_NAMES = {"params": "parameters", "tokens": "training tokens"}
_WELL_KNOWN = (
    *("GPT-3", "Chinchilla", "Gopher", "PaLM-540B", "LLaMA-7B", "Llama-3-8B", "Llama-3.1-405B"),
    *("DeepSeek-V3", "Qwen3-0.6B", "Qwen3-32B", "Pythia-70M", "Pythia-12B", "Gemma-2B", "OPT-175B"),
    *("Falcon-180B", "BLOOM-176B", "Qwen2.5-72B", "Gemma-3-27B", "OLMo-2-32B", "MiniCPM-2.4B"),
)
"""Models named in a drawing, as far as there is room; the others answer when pointed at."""


# --- loss against compute ------------------------------------------------------------------


def frontier_chart(frontier: Frontier, rungs: Sequence[Rung], canvas: Canvas) -> str:
    """Loss against compute: the runs, the lowest loss the law gives each budget, its band."""
    colours = size_classes(r.params for r in rungs)
    # Far below the runs an average knows little: its band there must not squeeze the rest.
    upper = frontier.points[len(frontier.points) // 2 :]
    ys = [loss for _, loss, _, _ in frontier.points]
    ys += [v for _, _, low, high in upper for v in (low, high)]
    frame = frame_for(
        canvas,
        scales.extent(
            [c for c, *_ in frontier.points] + [r.flops for r in rungs], log=True, margin=0.02
        ),
        loss_extent([*ys, *(frontier.asked or ())[1:]], [r.loss for r in rungs]),
        right=26,
    )
    inside = [(c, loss) for c, loss, _, _ in frontier.points if c <= frontier.fitted_to * 1.0001]
    beyond = [(c, loss) for c, loss, _, _ in frontier.points if c >= frontier.fitted_to * 0.9999]
    parts = [
        _axes(frame, canvas, "training compute, FLOPs", "loss, nats/token"),
        frame.area(_inside(frontier, frame), "ct"),
        *_dots([(r, (r.flops, r.loss), f"loss {r.loss:.4f}") for r in rungs], colours, frame),
        frame.path(inside, "ct thick"),
        frame.path(beyond, "ct thick dashed"),
        _end_of_runs(frame, frontier.fitted_to),
    ]
    last = frontier.points[-1]
    said = numbers.with_interval(last[1], last[2], last[3])
    if frontier.asked is None:
        x, y = frame.at((last[0], last[3]))
        parts.append(svg.words(x + 14, y - 10, said, "note", text_anchor="end"))
    else:
        parts.append(asked_mark(frontier.asked, frame))
    return svg.picture(
        canvas.width,
        canvas.height,
        f"frontier-{canvas.name}",
        "Lowest loss for each amount of compute",
        f"{len(rungs)} runs up to {numbers.scientific(frontier.fitted_to)} FLOPs. The law’s "
        f"lowest loss falls from {frontier.points[0][1]:.3f} at "
        f"{numbers.scientific(frontier.points[0][0])} FLOPs to {said} at "
        f"{numbers.scientific(last[0])}, {frontier.level:.0%} band.",
        "".join(parts),
    )


def asked_mark(asked: tuple[float, float, float, float], frame: Frame) -> str:
    """The run asked about: its forecast as a ring, the interval as a bar, both in words."""
    x, value, low, high = asked
    said = numbers.with_interval(value, low, high) if low < high else numbers.significant(value)
    at, y = frame.at((x, value))
    top, bottom = (frame.y(min(max(v, frame.y.low), frame.y.high)) for v in (high, low))
    right = at > 0.5 * (frame.x.start + frame.x.end)
    anchor = {"text_anchor": "end"} if right else {}
    # Losses fall to the right, so the room is above a place at the left and below one at the right.
    above = max(top - 12, frame.y.end + 14)
    base = bottom + 22 if right and bottom + 26 < frame.y.start else above
    return "".join(
        (
            svg.line(at, bottom, at, top, "bar ct"),
            *(svg.line(at - 5, end, at + 5, end, "bar ct") for end in (bottom, top)),
            svg.circle(at, y, 6.5, "hollow ct", said),
            svg.words(at + (14 if right else 10), base, said, "note strong", **anchor),
        )
    )


def loss_extent(law: Sequence[float], measured: Sequence[float]) -> tuple[float, float]:
    """The law's whole band, and of the measured losses all but a few far ones."""
    usual = scales.usual_extent(measured, margin=0.0) if measured else (min(law), max(law))
    return scales.extent([*law, *usual], margin=0.05)


def _axes(frame: Frame, canvas: Canvas, x_name: str, y_name: str) -> str:
    """A compute axis below and a linear one at the left."""
    return frame.axes(
        scales.log_ticks(frame.x, scales.compute_label, min_gap=58),
        scales.linear_ticks(frame.y, 5 if canvas.narrow else 7),
        x_name,
        y_name,
    )


def _inside(frontier: Frontier, frame: Frame) -> list[tuple[float, float, float]]:
    return [
        (c, max(low, frame.y.low), min(high, frame.y.high)) for c, _, low, high in frontier.points
    ]


def _dots(
    runs: Sequence[tuple[Rung, Point, str]], colours: dict[float, str], frame: Frame
) -> Iterable[str]:
    """A dot for each (run, place, words); arrows at the edge for those off the scale."""
    held = [(r, frame.at(p), said) for r, p, said in runs if frame.y.holds(p[1])]
    yield from run_dots(held, colours, radius=3)
    for run, (x, y), said in runs:
        if not frame.y.holds(y):
            tip = f"off the scale: {numbers.count(run.params)} parameters, {said}"
            yield arrow(frame, x, y, colours[run.params], tip)


def arrow(frame: Frame, x: float, y: float, colour: str, tip: str) -> str:
    """A triangle at the edge beyond which the point lies."""
    above = y > frame.y.high
    at, edge = frame.x(x), frame.y.end if above else frame.y.start
    data = f"M{svg.number(at)} {svg.number(edge)}l4 {7 if above else -7}h-8z"
    return svg.element("path", svg.element("title", svg.text(tip)), d=data, class_=f"dot {colour}")


def _end_of_runs(frame: Frame, flops: float) -> str:
    if not frame.x.holds(flops):
        return ""
    x = frame.x(flops)
    near_edge = x > frame.x.start + 0.75 * (frame.x.end - frame.x.start)
    side = {"text_anchor": "end"} if near_edge else {}
    words = svg.words(x + (-6 if near_edge else 6), frame.y.end + 4, "largest run", "tick", **side)
    return svg.line(x, frame.y.start, x, frame.y.end - 8, "guide") + words


# --- IsoFLOP families ----------------------------------------------------------------------


def isoflop_chart(budgets: Sequence[Budget], canvas: Canvas) -> str:
    """Loss against size at equal compute, one valley a budget, and the line of their minima."""
    ordered = sorted(budgets, key=lambda b: b.flops)
    colours = size_classes(b.flops for b in ordered)
    xs = [n for b in ordered for n, _ in (*b.runs, *b.valley)]
    ys = [loss for b in ordered for _, loss in (*b.runs, *b.valley)]
    frame = frame_for(
        canvas,
        scales.extent(xs, log=True, margin=0.04),
        scales.usual_extent(ys),
        right=58,
    )
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.count_label, min_gap=44),
            scales.linear_ticks(frame.y, 5 if canvas.narrow else 7),
            "parameters",
            "loss, nats/token",
        )
    ]
    for budget in ordered:
        colour = colours[budget.flops]
        parts.append(frame.path(in_span(budget.valley, frame), colour))
        said = numbers.scientific(budget.flops)
        for params, loss in budget.runs:
            tip = f"{numbers.count(params)} parameters, {said} FLOPs: loss {loss:.4f}"
            if frame.y.holds(loss):
                parts.append(svg.circle(*frame.at((params, loss)), 3, f"dot {colour}", tip))
            else:
                parts.append(arrow(frame, params, loss, colour, tip))
    lowest = [(b, b.lowest) for b in ordered if b.lowest is not None]
    parts.append(frame.path([at for _, at in lowest], "ct dashed"))
    for budget, at in lowest:
        tip = f"{numbers.scientific(budget.flops)} FLOPs: best {numbers.count(at[0])}, {at[1]:.4f}"
        parts.append(svg.circle(*frame.at(at), 5, "hollow ct", tip))
    parts.extend(_budget_labels(ordered, frame))
    first, last = lowest[0][1] if lowest else (0, 0), lowest[-1][1] if lowest else (0, 0)
    return svg.picture(
        canvas.width,
        canvas.height,
        f"isoflop-{canvas.name}",
        "Loss against size at equal compute",
        f"{len(ordered)} budgets from {numbers.scientific(ordered[0].flops)} to "
        f"{numbers.scientific(ordered[-1].flops)} FLOPs; the best size grows from "
        f"{numbers.count(first[0])} to {numbers.count(last[0])} parameters.",
        "".join(parts),
    )


def _budget_labels(budgets: Sequence[Budget], frame: Frame) -> Iterable[str]:
    """The compute of each valley at its right end, where that touches no other."""
    placed: list[Point] = []
    for budget in reversed(budgets):
        shown = in_span(budget.valley or budget.runs, frame)
        if not shown:
            continue
        x, y = frame.at(max(shown))
        others = [frame.at(p) for b in budgets if b is not budget for p in in_span(b.runs, frame)]
        covers = any(0 < x2 - x < 50 and abs(y - y2) < 9 for x2, y2 in others)
        if not covers and not any(abs(x - x2) < 52 and abs(y - y2) < 14 for x2, y2 in placed):
            placed.append((x, y))
            yield svg.words(x + 7, y + 4, scales.compute_label(budget.flops), "label")


# --- allocation ----------------------------------------------------------------------------


def allocation_chart(
    divisions: Sequence[Division],
    models: Sequence[KnownRun],
    quantity: Literal["params", "tokens"],
    canvas: Canvas,
) -> str:
    """Best size (or horizon) against compute by several laws; known models as dots."""
    column = 1 if quantity == "params" else 2
    lines = {d: [(p[0], p[column]) for p in d.points] for d in divisions}
    dots = [(m, (m.flops, m.params if quantity == "params" else m.tokens)) for m in models]
    points = [p for line in lines.values() for p in line] + [at for _, at in dots]
    frame = frame_for(
        canvas,
        scales.extent([x for x, _ in points], log=True, margin=0.01),
        scales.extent([y for _, y in points], log=True, margin=0.02),
        y_log=True,
        left=54,
        right=88,
    )
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.compute_label, min_gap=58),
            [t for t in scales.log_ticks(frame.y, scales.count_label, min_gap=26) if t.label],
            "training compute, FLOPs",
            f"best {_FULL_NAMES[quantity]}",
        )
    ]
    for model, at in dots:
        tip = (
            f"{model.name}: {numbers.count(model.params)} parameters, "
            f"{numbers.count(model.tokens)} tokens"
        )
        parts.append(svg.circle(*frame.at(at), 3.5, "model", tip))
    for division, line in sorted(lines.items(), key=lambda pair: pair[0].own):
        if not division.own:
            parts.append(frame.path(line, "c3 faint"))
            continue
        inside = [p for p in line if _within(p[0], division.fitted)]
        parts += [frame.path(line, "ct dashed"), frame.path(inside, "ct thick")]
    if not canvas.narrow:
        parts.extend(_model_names([(m.name, frame.at(at)) for m, at in dots], frame))
    parts.extend(_division_names(lines, frame))
    return svg.picture(
        canvas.width,
        canvas.height,
        f"allocation-{quantity}-{canvas.name}",
        f"Best {_FULL_NAMES[quantity]} for each amount of compute",
        f"Lines of {len(divisions)} laws, dots of {len(models)} known models. "
        + " ".join(_division_words(d, column) for d in divisions),
        "".join(parts),
    )


def _within(flops: float, span: tuple[float, float] | None) -> bool:
    return span is None or span[0] * 0.999 <= flops <= span[1] * 1.001


def _division_words(division: Division, column: int) -> str:
    last = division.points[-1]
    return f"{division.name}: {numbers.count(last[column])} at {numbers.scientific(last[0])} FLOPs."


def _division_names(lines: dict[Division, list[Point]], frame: Frame) -> Iterable[str]:
    keys = list(lines)
    ends = [frame.at(lines[k][-1]) for k in keys]
    ys = scales.spread_labels([y for _, y in ends], 15, frame.y.end, frame.y.start)
    for division, (x, _), y in zip(keys, ends, ys, strict=True):
        yield svg.words(x + 7, y + 4, division.name, "label strong" if division.own else "label")


def _model_names(places: Sequence[tuple[str, Point]], frame: Frame) -> Iterable[str]:
    """Names where they touch neither another name nor a dot, the best known first."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for _, (x, y) in places]
    known = dict(places)
    for name in _WELL_KNOWN:
        if name not in known:
            continue
        x, y = known[name]
        width = 7.4 * len(name)
        for anchor, left, base in (
            ("start", x + 7, y + 4),
            ("end", x - 7 - width, y + 4),
            ("middle", x - width / 2, y - 8),
            ("middle", x - width / 2, y + 17),
        ):
            box = (left, base - 10, left + width, base + 2)
            if left + width > frame.x.end or left < frame.x.start or box[1] < frame.y.end:
                continue
            if not any(_touch(box, other) for other in taken):
                taken.append(box)
                at = left + width * ("start", "middle", "end").index(anchor) / 2
                yield svg.words(at, base, name, "tick halo", text_anchor=anchor)
                break


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- residuals -----------------------------------------------------------------------------


def misfit_chart(rungs: Sequence[Rung], canvas: Canvas) -> str:
    """Residuals against size and against horizon, each with its running median."""
    shown = [(r, p) for r in rungs if (p := r.residual_percent) is not None]
    colours = size_classes(r.params for r, _ in shown)
    span = scales.usual_extent([0.0, *(p for _, p in shown)], margin=0.08)
    half = Canvas(canvas.width / 2 - 8, canvas.height, canvas.name)
    height = canvas.height
    if canvas.narrow:  # one above the other, each high enough to read
        half = Canvas(canvas.width, 0.8 * canvas.height, canvas.name)
        height = 2 * half.height
    panels = []
    for i, (name, xs) in enumerate(
        (
            ("parameters", [r.params for r, _ in shown]),
            ("training tokens", [r.tokens for r, _ in shown]),
        )
    ):
        frame = frame_for(half, scales.extent(xs, log=True, margin=0.04), span)
        zero = frame.y(0)
        places = [
            (r, (x, p), numbers.signed_percent(p)) for x, (r, p) in zip(xs, shown, strict=True)
        ]
        inner = [
            frame.axes(
                scales.log_ticks(frame.x, scales.count_label, min_gap=44),
                scales.linear_ticks(frame.y, 5),
                name,
                "measured − law, %",
            ),
            svg.line(frame.x.start, zero, frame.x.end, zero, "zero"),
            *_dots(places, colours, frame),
            frame.path(running_median([at for _, at, _ in places]), "ct thick"),
        ]
        shift = (0.0, i * half.height) if canvas.narrow else (i * (half.width + 16), 0.0)
        place = f"translate({svg.number(shift[0])} {svg.number(shift[1])})"
        panels.append(svg.element("g", "".join(inner), transform=place))
    worst = max(shown, key=lambda pair: abs(pair[1]), default=None)
    said = ""
    if worst is not None:
        typical = median(abs(p) for _, p in shown)
        said = (
            f" The median distance is {typical:.2f} percent, the largest {abs(worst[1]):.2f} "
            f"({numbers.count(worst[0].params)} parameters, {numbers.count(worst[0].tokens)} "
            "tokens)."
        )
    return svg.picture(
        canvas.width,
        height,
        f"misfit-{canvas.name}",
        "Distance from the law by size and by horizon",
        f"{len(shown)} runs.{said}",
        "".join(panels),
    )


def running_median(points: Sequence[Point], most: int = 8) -> list[Point]:
    """Medians of x and y over up to `most` groups of equal number along x, five points at least.

    Points of equal x stay in one group; fewer than two groups give nothing.
    """
    ordered = sorted(points)
    size = max(5, -(-len(ordered) // most))
    groups: list[list[Point]] = []
    for point in ordered:
        full = bool(groups) and len(groups[-1]) >= size and groups[-1][-1][0] != point[0]
        if not groups or full:
            groups.append([])
        groups[-1].append(point)
    if len(groups) > 1 and len(groups[-1]) < size / 2:
        groups[-2] += groups.pop()
    medians = [(median(x for x, _ in g), median(y for _, y in g)) for g in groups]
    return medians if len(medians) > 1 else []
