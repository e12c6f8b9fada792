"""A small vocabulary of SVG: elements, paths and a plotting frame; knows nothing of runs or laws.

Colours live in `assets/chart.css`: every shape carries classes, so that the page's light, dark and
print forms share one drawing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from isoflop.reporting.phrases import chinese_of
from isoflop.reporting.scales import Scale, Tick

Point = tuple[float, float]
"""A place in pixels, or in data where a scale is at hand."""

# What XML 1.0 forbids even as a reference, and the lone surrogates that UTF-8 cannot carry.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def text(value: str) -> str:
    """`value` made safe as HTML or XML text or attribute; forbidden characters become �."""
    return escape(_FORBIDDEN.sub("�", value), quote=True)


def element(name: str, content: str = "", **attributes: object) -> str:
    """One element. Attribute names lose a trailing `_`, inner `_` become `-`; None is left out.

    `content` is markup: pass words through `text` first. Attribute values are made safe here.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{pairs}>{content}</{name}>" if content else f"<{name}{pairs}/>"


def _value(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return text(str(value))


def number(value: float) -> str:
    """A pixel with at most two decimals and no needless zeros."""
    shortened = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shortened == "-0" else shortened


def words(x: float, y: float, content: str, class_: str, **attributes: object) -> str:
    """A line of text at (x, y)."""
    return element("text", text(content), x=x, y=y, class_=class_, **attributes)


def phrase(x: float, y: float, english: str, class_: str, **attributes: object) -> str:
    """`words` of a fixed phrase, in Chinese too where that is known; the style sheet shows one."""
    chinese = chinese_of(english)
    if chinese is None:
        return words(x, y, english, class_, **attributes)
    spans = element("tspan", text(english), class_="en")
    spans += element("tspan", text(chinese), class_="zh", lang="zh-Hans")
    return element("text", spans, x=x, y=y, class_=class_, **attributes)


def polyline(points: Sequence[Point]) -> str:
    """Path data through `points` in pixels."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def band(upper: Sequence[Point], lower: Sequence[Point]) -> str:
    """Path data of the closed area between two lines over the same places."""
    return polyline([*upper, *reversed(lower)]) + "Z"


def circle(x: float, y: float, radius: float, class_: str, tip: str = "") -> str:
    """A dot, with words that show when pointed at."""
    inner = element("title", text(tip)) if tip else ""
    return element("circle", inner, cx=x, cy=y, r=radius, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


@dataclass(frozen=True)
class Frame:
    """The plotting area of one chart: scales, ticks and what they are called."""

    width: float
    height: float
    x: Scale
    y: Scale
    """`start` is the bottom edge in pixels, `end` the top."""

    def at(self, point: Point) -> Point:
        """Data → pixels."""
        return self.x(point[0]), self.y(point[1])

    def path(self, points: Iterable[Point], class_: str) -> str:
        """A line through data points; nothing for fewer than two."""
        placed = [self.at(p) for p in points]
        if len(placed) < 2:
            return ""
        return element("path", d=polyline(placed), class_=f"line {class_}")

    def area(self, points: Iterable[tuple[float, float, float]], class_: str) -> str:
        """The area between low and high over x, given as (x, low, high) in data."""
        kept = list(points)
        if len(kept) < 2:
            return ""
        upper = [self.at((x, high)) for x, _, high in kept]
        lower = [self.at((x, low)) for x, low, _ in kept]
        return element("path", d=band(upper, lower), class_=f"area {class_}")

    def axes(
        self, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x_name: str, y_name: str
    ) -> str:
        """Grid lines, tick marks, their words and the two names."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        parts = []
        for tick in y_ticks:
            y = self.y(tick.value)
            parts.append(line(left, y, right, y, "grid"))
            parts.append(words(left - 8, y + 4, tick.label, "tick", text_anchor="end"))
        for tick in x_ticks:
            x = self.x(tick.value)
            reach = 6 if tick.major else 4 if tick.label else 3
            parts.append(line(x, bottom, x, bottom + reach, "axis"))
            if tick.label:
                parts.append(words(x, bottom + 20, tick.label, "tick", text_anchor="middle"))
        parts.append(line(left, bottom, right, bottom, "axis"))
        parts.append(phrase(right, bottom + 40, x_name, "name", text_anchor="end"))
        parts.append(phrase(0, top - 14, y_name, "name"))
        return "".join(parts)


def picture(
    width: float, height: float, key: str, title: str, description: str, content: str
) -> str:
    """A whole SVG image with its accessible name and description.

    Args:
        key: A name unique in the page, for the ids of the title and the description.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" '
        f'role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{text(title)}</title><desc id="{key}-d">{text(description)}</desc>'
        f"{content}</svg>"
    )
