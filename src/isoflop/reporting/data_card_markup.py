"""Markup in two languages at once, and text of strangers made harmless; knows nothing of corpora.

Each phrase stands in the page in English and in Chinese; the style sheet shows one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.reporting.svg import element, text
from isoflop.reporting.tongues import both

_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_NAME_CHARACTERS = 160


@dataclass(frozen=True)
class Head:
    """One column of a table; its title is markup."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Part:
    """One section of the card; title and body are markup."""

    key: str
    title: str
    body: str


def both_in_svg(x: float, y: float, english: str, chinese: str, class_: str, anchor: str) -> str:
    """A plain phrase at (x, y) of a drawing in both languages."""
    spans = element("tspan", text(english), class_="en")
    spans += element("tspan", text(chinese), class_="zh")
    return element("text", spans, x=x, y=y, class_=class_, text_anchor=anchor)


def stranger(value: str) -> str:
    """Text out of a document as markup: nothing in it acts on the page or on the words around.

    Marks that turn the direction of writing and control characters are shown by their names.
    """
    shown = _CONTROLS.sub("�", value)
    parts, at = [], 0
    for found in _BIDI.finditer(shown):
        parts.append(text(shown[at : found.start()]))
        parts.append(f'<span class="seen">U+{ord(found.group()):04X}</span>')
        at = found.end()
    parts.append(text(shown[at:]))
    return f"<bdi>{''.join(parts)}</bdi>"


def name(value: str) -> str:
    """A stranger's name for something, cut where it is very long."""
    return stranger(value if len(value) <= _NAME_CHARACTERS else f"{value[:_NAME_CHARACTERS]}…")


def grid(
    caption: str, heads: Sequence[Head], rows: Sequence[Sequence[str]], class_: str = ""
) -> str:
    """A table that scrolls sideways on narrow screens; the first cell of a row is its header.

    Args:
        caption: Markup, as are the cells. A row whose first cell begins with `<b>` stands out.
    """
    head = "".join(f'<th scope="col"{_numeric(h)}>{h.title}</th>' for h in heads)
    body = []
    for row in rows:
        whole = ' class="whole"' if row[0].startswith("<b>") else ""
        cells = zip(heads[1:], row[1:], strict=True)
        data = "".join(f"<td{_numeric(h)}>{cell}</td>" for h, cell in cells)
        body.append(f'<tr{whole}><th scope="row"{_numeric(heads[0])}>{row[0]}</th>{data}</tr>')
    named = f' class="{class_}"' if class_ else ""
    return (
        f'<div class="scroll" tabindex="0"><table{named}><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _numeric(head: Head) -> str:
    return ' class="n"' if head.numeric else ""


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Figures to see at a glance: (name, value, remark), all markup."""
    items = "".join(
        f"<div><dt>{title}</dt> <dd>{value}"
        + (f" <small>{remark}</small>" if remark else "")
        + "</dd></div>"
        for title, value, remark in entries
    )
    return f'<dl class="cards">{items}</dl>'


def bar(share: float, kind: str = "in", offset: float = 0.0) -> str:
    """A bar of `share` percent of its track, beginning at `offset` percent."""
    left = f"margin-left:{offset:.2f}%;" if offset > 0 else ""
    width = min(100.0 - offset, max(share, 0.0))
    return (
        '<span class="track" aria-hidden="true">'
        f'<span class="share {kind}" style="{left}width:{width:.2f}%"></span></span>'
    )


def percent(share: float) -> str:
    """A share in percent, small ones as what they are less than."""
    if share <= 0:
        return "0\u202f%"
    return "&lt;\u202f0.1\u202f%" if share < 0.05 else f"{share:.1f}\u202f%"


def remark(english: str, chinese: str) -> str:
    """A remark, as markup, in both languages."""
    return f'<p class="aside">{both(english, chinese)}</p>'


def share(part: float, whole: float) -> float:
    """A share in percent; 0 of nothing."""
    return 100.0 * part / whole if whole > 0 else 0.0


def glossed(label: str, phrase: tuple[str, str] | None, class_: str = "reason") -> str:
    """A name as the files spell it, and what it means."""
    meaning = "" if phrase is None else f"<small>{both(*phrase)}</small>"
    return f'<span class="{class_}">{name(label)}</span>{meaning}'


def missing(english: str, chinese: str) -> str:
    """That something was not done, and how to have it."""
    return f'<p class="missing">{both(english, chinese)}</p>'


DOCUMENTS = Head(both("Documents", "文档"), True)
