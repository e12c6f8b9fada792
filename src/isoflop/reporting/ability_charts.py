"""Drawings of what runs can do; values in, one SVG string out. Not for words around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for

SHOTS = (0, 1, 2, 4, 8, 16)
"""Examples in the prompt, in the order of the axis."""
_LABEL_WIDTH = 150.0


def heat_map(
    runs: Sequence[Mapping[str, Any]], tasks: Mapping[str, Mapping[str, Any]], canvas: Canvas
) -> str:
    """Task by run: how far each score lies from chance towards 1."""
    left = 92.0 if canvas.narrow else _LABEL_WIDTH
    top, bottom = 8.0, 50.0
    width = (canvas.width - left - 4) / len(runs)
    height = (canvas.height - top - bottom) / len(tasks)
    parts = []
    for row, (name, task) in enumerate(tasks.items()):
        y = top + row * height
        shown = name if len(name) <= left / 7 else f"{name[: int(left / 7) - 1]}…"
        parts.append(svg.words(left - 8, y + height / 2 + 4, shown, "label", text_anchor="end"))
        for column, run in enumerate(runs):
            scored = task["runs"][run["run_id"]]
            x = left + column * width
            parts.append(_heat_cell(x, y, width, height, name, task["chance"], scored, run))
            if width >= 34 and height >= 16:
                said = f"{100 * scored['score']:.0f}"
                class_ = "tick" if scored["standing"] == "at" else "label halo"
                parts.append(
                    svg.words(x + width / 2, y + height / 2 + 4, said, class_, text_anchor="middle")
                )
    axis = canvas.height - bottom
    for column in _spread(len(runs), 4 if canvas.narrow else 8):
        x = left + (column + 0.5) * width
        label = scales.compute_label(runs[column]["flops"])
        parts.append(svg.words(x, axis + 18, label, "tick", text_anchor="middle"))
    parts.append(
        svg.words(canvas.width - 4, axis + 38, "training compute, FLOPs", "name", text_anchor="end")
    )
    above = sum(
        task["runs"][run["run_id"]]["standing"] == "above"
        for task in tasks.values()
        for run in runs
    )
    return svg.picture(
        canvas.width, canvas.height, f"abilities-{canvas.name}", "Scores of tasks by run",
        f"{len(tasks)} tasks on {len(runs)} runs; {above} of {len(tasks) * len(runs)} scores lie "
        "above chance.", "".join(parts),
    )  # fmt: skip


def _heat_cell(
    x: float, y: float, width: float, height: float, name: str, chance: float,
    scored: Mapping[str, Any], run: Mapping[str, Any],
) -> str:  # fmt: skip
    at_chance = scored["standing"] == "at"
    share = (scored["score"] - chance) / max(1 - chance, 1e-9)
    fill = 0.12 if at_chance else 0.08 + 0.8 * min(1.0, max(0.0, share))
    tip = (
        f"{name}, {numbers.count(run['params'])} parameters on {numbers.count(run['tokens'])} "
        f"tokens: {scored['score']:.3f}" + (", at chance" if at_chance else "")
    )
    colour = "soft" if at_chance else "c5" if share >= 0 else "ct"
    return svg.element(
        "rect", svg.element("title", svg.text(tip)), x=x + 1, y=y + 1, width=max(1.0, width - 2),
        height=max(1.0, height - 2), rx=2.0, class_=f"cell {colour}", fill_opacity=fill,
    )  # fmt: skip


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def context_chart(
    name: str,
    task: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    colours: Mapping[float, str],
    canvas: Canvas,
) -> str:
    """Score after k examples, a line per size; rings are the control."""
    frame = frame_for(canvas, (-0.3, len(SHOTS) - 0.7), (0.0, 1.0), x_log=False)
    ticks = [scales.Tick(float(i), str(k), True) for i, k in enumerate(SHOTS)]
    parts = [
        frame.axes(ticks, scales.linear_ticks(frame.y, 5), "examples in the prompt", "share right")
    ]
    chance = frame.y(task["chance"])
    parts.append(svg.line(frame.x.start, chance, frame.x.end, chance, "guide"))
    said = []
    for run in runs:
        groups = task["runs"][run["run_id"]]["groups"]
        colour = colours[run["params"]]
        points = [
            (float(i), groups[f"k={k}"]["score"]) for i, k in enumerate(SHOTS) if f"k={k}" in groups
        ]
        parts.append(frame.path(points, colour))
        for (x, y), k in zip(points, SHOTS, strict=False):
            tip = f"{numbers.count(run['params'])} parameters, k = {k}: {y:.3f}"
            parts.append(svg.circle(*frame.at((x, y)), 3, f"dot {colour}", tip))
        control = groups.get(f"k={SHOTS[-1]}, answers shuffled")
        if control is not None:
            place = frame.at((len(SHOTS) - 1.0, control["score"]))
            parts.append(svg.circle(*place, 5, f"hollow {colour}", "answers shuffled"))
        if points:
            said.append(f"{numbers.count(run['params'])} parameters: {points[-1][1]:.2f}")
    return svg.picture(
        canvas.width, canvas.height, f"{_key(name)}-{canvas.name}", f"{name} by examples",
        f"After {SHOTS[-1]} examples, {'; '.join(said)}.", "".join(parts),
    )  # fmt: skip


def gain_chart(name: str, gain: Mapping[str, Any], canvas: Canvas) -> str:
    """Shares gained by steps over a direct answer, with intervals, by compute."""
    rows = list(zip(gain["scale"], gain["low"], gain["gain"], gain["high"], strict=True))
    frame = frame_for(
        canvas,
        scales.extent(gain["scale"], log=True, margin=0.06),
        scales.extent([0.0, *gain["low"], *gain["high"]], margin=0.08),
    )
    zero = frame.y(0.0)
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.compute_label, min_gap=58),
            scales.linear_ticks(frame.y, 4), "training compute, FLOPs", "gain, share right",
        ),
        svg.line(frame.x.start, zero, frame.x.end, zero, "zero"),
    ]  # fmt: skip
    for scale, low, value, high in rows:
        x = frame.x(scale)
        parts.append(svg.line(x, frame.y(low), x, frame.y(high), "bar c4"))
        parts.append(svg.circle(x, frame.y(value), 4, "dot c4", f"{value:+.3f}"))
    return svg.picture(
        canvas.width, canvas.height, f"gain-{_key(name)}-{canvas.name}", f"{name}: gain of steps",
        f"From {rows[0][2]:+.2f} to {rows[-1][2]:+.2f} over {len(rows)} computes.", "".join(parts),
    )  # fmt: skip


def verdict_chart(name: str, found: Mapping[str, Any], canvas: Canvas) -> str:
    """Shares right by compute, what the log-probabilities foretell, and second differences."""
    scale, shares = found["scale"], found["shares"]
    frame = frame_for(canvas, scales.extent(scale, log=True, margin=0.05), (-0.25, 1.02), left=40)
    ticks = [tick for tick in scales.linear_ticks(frame.y, 5) if tick.value >= -1e-9]
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, scales.compute_label, min_gap=58), ticks,
            "training compute, FLOPs", "share right",
        )
    ]  # fmt: skip
    if found["foretold"] is not None:
        band = found["band"]
        parts.append(
            frame.area([(c, low, high) for c, (low, high) in zip(scale, band, strict=True)], "ct")
        )
        parts.append(frame.path(list(zip(scale, found["foretold"], strict=True)), "ct dashed"))
    if found["step_at"] is not None:
        low, high = (frame.x(each) for each in found["step_at"])
        parts.insert(0, svg.element(
            "rect", x=low, y=frame.y(1.0), width=max(1.0, high - low),
            height=frame.y(0.0) - frame.y(1.0), class_="basin",
        ))  # fmt: skip
    parts.append(frame.path(list(zip(scale, shares, strict=True)), "c5 thin"))
    for c, share in zip(scale, shares, strict=True):
        parts.append(svg.circle(*frame.at((c, share)), 3, "dot c5", f"{share:.3f}"))
    middle = frame.y(-0.14)
    largest = max((abs(each) for each in found["second_differences"]), default=0.0)
    for c, each in zip(scale[1:], found["second_differences"], strict=False):
        x, length = frame.x(c), 16 * each / largest if largest else 0.0
        parts.append(svg.line(x, middle, x, middle - length, "bar faint c3"))
    return svg.picture(
        canvas.width, canvas.height, f"verdict-{_key(name)}-{canvas.name}", f"{name} over compute",
        f"{found['verdict']}: {found['reason']}.", "".join(parts),
    )  # fmt: skip


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
