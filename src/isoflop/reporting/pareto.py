"""Compressed models by size and loss in one SVG: what was promised, what came, which are worth it.

Not for compressing, nor for curves of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.reporting import numbers, scales, svg
from isoflop.reporting.charts import Canvas, frame_for
from isoflop.reporting.law_drawings import Drawing
from isoflop.reporting.law_plot import sheet

HEIGHT = 430.0
LINE_HEIGHT = 17.0


@dataclass(frozen=True)
class Point:
    """One model."""

    name: str
    bytes: float
    bits_per_byte: float
    low: float | None = None
    """Ends of what was promised, in bits per byte; None of a model that was not compressed."""
    high: float | None = None


def points_of(directories: Sequence[Path]) -> list[Point]:
    """The full model and each compressed one, from their `result.json`.

    Raises:
        ArtifactError: A directory is not one that `isoflop compress` wrote, or they were judged
            on other text or made from models of other sizes.
    """
    found: list[Point] = []
    for directory in directories:
        path = directory / "result.json"
        if not path.exists():
            raise ArtifactError(
                "there is no result.json", where=str(directory),
                fix="Give directories that `isoflop compress … -o DIR` wrote",
            )  # fmt: skip
        raw = read_json(path)
        try:
            found += _two(directory.resolve().name, raw)
        except (KeyError, TypeError, IndexError):
            raise ArtifactError(
                "not the result of `isoflop compress`", where=str(path),
                fix="Give directories that `isoflop compress … -o DIR` wrote",
            ) from None  # fmt: skip
    fulls = {(point.bytes, round(point.bits_per_byte, 9)) for point in found[::2]}
    if len(fulls) > 1:
        raise ArtifactError(
            "these models do not compare: they were made from different models, or judged on "
            "different text or numbers of --tokens",
            where=", ".join(map(str, directories)),
            fix="Compress one model several times with the same --data and --tokens",
        )
    return [*found[:1], *found[1::2]]


def _two(name: str, raw: Mapping[str, Any]) -> tuple[Point, Point]:
    measured, promise = raw["measured"], raw["promises"][0]
    full = float(measured["bits_per_byte_full"])
    return (
        Point("full model", float(raw["bytes_full"]), full),
        Point(
            name, float(raw["bytes"]), float(measured["bits_per_byte"]),
            full + float(promise["low"]), full + float(promise["high"]),
        ),
    )  # fmt: skip


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other model beats in size and loss at once, the smallest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.bytes, p.bits_per_byte)):
        if not best or point.bits_per_byte < best[-1].bits_per_byte:
            best.append(point)
    return best


def plot_pareto(points: Sequence[Point]) -> str:
    """The chart as an SVG document with its own colours, light and dark."""
    worth = frontier(points)
    names = ", ".join(point.name for point in worth)
    drawing = Drawing(
        "Size against loss",
        "Dots: bits per byte measured on held-out text. Bars: the interval promised before. The "
        f"line joins the models that no other beats in both: {names}.",
        lambda canvas: _draw(points, worth, canvas),
        HEIGHT,
    )
    return sheet(f"{len(points) - 1} compressed models and the full one", [drawing])


def _draw(points: Sequence[Point], worth: Sequence[Point], canvas: Canvas) -> str:
    losses = [value for p in points for value in (p.bits_per_byte, p.low, p.high) if value]
    frame = frame_for(
        canvas,
        scales.extent([p.bytes for p in points], log=True, margin=0.12),
        scales.extent(losses, margin=0.08),
        right=110,
    )
    parts = [
        frame.axes(
            scales.log_ticks(frame.x, _bytes), scales.linear_ticks(frame.y),
            "size of the weights", "bits per byte",
        ),
        frame.path([(p.bytes, p.bits_per_byte) for p in worth], "ct"),
    ]  # fmt: skip
    for point in points:
        x, y = frame.at((point.bytes, point.bits_per_byte))
        if point.low is not None and point.high is not None:
            top, bottom = frame.y(point.high), frame.y(point.low)
            parts.append(svg.line(x, top, x, bottom, "bar ct"))
        tip = f"{point.name}: {_bytes(point.bytes)}, {point.bits_per_byte:.4f} bits per byte"
        kind = "filled ct" if point in worth else "hollow ct"
        parts.append(svg.circle(x, y, 5.5, kind, tip))
    places = scales.spread_labels(
        [frame.y(p.bits_per_byte) for p in points], LINE_HEIGHT, frame.y.end, frame.y.start
    )
    for point, place in zip(points, places, strict=True):
        parts.append(svg.words(frame.x(point.bytes) + 11, place + 4, point.name, "tick halo"))
    described = "; ".join(f"{p.name} {p.bytes:.0f} bytes, {p.bits_per_byte:.4f}" for p in points)
    return svg.picture(
        canvas.width, canvas.height, f"pareto-{canvas.name}", "Size against loss", described,
        "".join(parts),
    )  # fmt: skip


def _bytes(value: float) -> str:
    """`500 kB`: in decimal units, for the ticks are round in them."""
    return f"{numbers.count(value)}B"
