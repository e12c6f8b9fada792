"""Pieces of HTML that sections are made of: tables, figures, cards; knows nothing of reports.

Every function returns markup. Words that come from files pass through `text` before they get here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isoflop.reporting.charts import Canvas
from isoflop.reporting.svg import text
from isoflop.reporting.tongues import both, fixed

__all__ = [
    "Column",
    "Section",
    "both",
    "cards",
    "code",
    "details",
    "figure",
    "fixed",
    "legend",
    "said",
    "table",
    "text",
]


@dataclass(frozen=True)
class Section:
    """One part of the page, listed in its contents."""

    key: str
    """The anchor."""
    title: str
    """Markup, in both languages."""
    body: str


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    numeric: bool = False


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], chinese: str = ""
) -> str:
    """A table that scrolls sideways on narrow screens; the first cell of a row is its header.

    Args:
        chinese: The caption in Chinese.
    """
    head = "".join(
        f'<th scope="col"{_numeric(column)}>{fixed(column.title)}</th>' for column in columns
    )
    body = "".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table>'
        f"<caption>{said(caption, chinese)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    first = f'<th scope="row"{_numeric(columns[0])}>{cells[0]}</th>'
    pairs = zip(columns[1:], cells[1:], strict=True)
    return first + "".join(f"<td{_numeric(column)}>{cell}</td>" for column, cell in pairs)


def _numeric(column: Column) -> str:
    return ' class="n"' if column.numeric else ""


def figure(
    draw: Callable[[Canvas], str], caption: str, *, height: float = 420, above: str = ""
) -> str:
    """A chart drawn once for wide and once for narrow screens; the style sheet shows one.

    Args:
        draw: The chart for a canvas.
        caption: Markup under the chart.
        height: Of the wide drawing; the narrow one is three quarters as high at most.
        above: Markup over the chart, e.g. a legend.
    """
    wide = draw(Canvas(820, height, "wide"))
    narrow = draw(Canvas(360, min(height, max(0.75 * height, 250)), "narrow"))
    return (
        f'<figure>{above}<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Colour classes and their words, as a list."""
    items = "".join(
        f'<li><span class="swatch {colour}" aria-hidden="true"></span>{fixed(words)}</li>'
        for colour, words in entries
    )
    return f'<ul class="legend">{items}</ul>'


def cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """Figures to see at a glance: (name, value, remark); the value is plain words, the others are
    markup."""
    items = "".join(
        f"<div><dt>{name}</dt> <dd>{text(value)}"
        + (f" <small>{remark}</small>" if remark else "")
        + "</dd></div>"
        for name, value, remark in entries
    )
    return f'<dl class="cards">{items}</dl>'


def said(english: str, chinese: str = "") -> str:
    """Plain words as markup, in Chinese too where they are given or known."""
    return both(text(english), text(chinese)) if chinese else fixed(english)


def details(summary: str, body: str, chinese: str = "") -> str:
    """What most readers pass over, one click away."""
    return f"<details><summary>{said(summary, chinese)}</summary>{body}</details>"


def code(command: str) -> str:
    """A command to repeat, wrapped rather than cut."""
    return f'<pre class="command"><code>{text(command)}</code></pre>'
