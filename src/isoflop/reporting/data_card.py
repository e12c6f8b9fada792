"""The data card: one offline HTML page on what a corpus holds and what was dropped on the way.

Needs no network and no script, and reads in English and Chinese. Not for reading the corpus
(data_card_read) nor for what a section says (data_card_sections, _findings, _samples).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import write_atomic
from isoflop.data.tokenizer import load
from isoflop.reporting import data_card_findings as findings
from isoflop.reporting import data_card_samples as samples
from isoflop.reporting import data_card_sections as sections
from isoflop.reporting import numbers
from isoflop.reporting.data_card_markup import Part, name
from isoflop.reporting.data_card_read import read_card
from isoflop.reporting.data_card_records import Card
from isoflop.reporting.page import POLICY, SWITCH, TONGUES, style
from isoflop.reporting.svg import text
from isoflop.reporting.tongues import both
from isoflop.version import __version__

MOST_BYTES = 480_000
"""A card is made with shorter excerpts until it is no larger."""
_EXCERPTS = (320, 160, 80, 30, 0)
_SHEETS = ("chart.css", "style.css", "card.css")


@dataclass(frozen=True)
class WrittenCard:
    """A data card on disk."""

    path: Path
    bytes: int
    card: Card
    """The values in it."""


def data_card(
    corpus: Path | str, out: Path | str | None = None, tokenizer: Path | str | None = None
) -> WrittenCard:
    """Write the data card of a corpus.

    Args:
        corpus: A directory that `isoflop data build` wrote.
        out: The page, replaced whole or not at all; `card.html` in the corpus when omitted.
        tokenizer: A tokenizer directory to count tokens with, on a sample of each language.

    Raises:
        ArtifactError: The corpus or the tokenizer is missing or damaged; names the file.
    """
    directory = Path(corpus)
    path = directory / "card.html" if out is None else Path(out)
    card = read_card(directory, None if tokenizer is None else load(Path(tokenizer)))
    page = build(card).encode()
    write_atomic(path, page)
    return WrittenCard(path, len(page), card)


def build(card: Card) -> str:
    """The card as one HTML page of at most `MOST_BYTES`; the same card gives the same bytes."""
    page = ""
    for characters in _EXCERPTS:
        page = _page(card, characters)
        if len(page.encode()) <= MOST_BYTES:
            break
    return page


def _page(card: Card, characters: int) -> str:
    parts = [
        sections.funnel(card),
        samples.side_by_side(card, characters),
        sections.languages(card),
        sections.lengths(card),
        sections.sources(card),
        findings.duplicates(card),
        findings.contamination(card),
        findings.personal(card),
        sections.licences(card),
        samples.by_rule(card, characters),
        samples.origin(card),
    ]
    title = f"{card.name}: data card · 数据卡"
    body = "".join(_section(number, part) for number, part in enumerate(parts, 1))
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="generator" content="Isoflop {text(__version__)}">'
        f"<title>{text(title)}</title><style>{style(*_SHEETS)}</style></head>\n<body>"
        f"{SWITCH}{_header(card)}"
        f'<div class="columns">{_contents(parts)}<main id="content">{body}</main></div>'
        f"<footer><p>{both('Made by Isoflop', '由 Isoflop 制作')} {text(__version__)}</p></footer>"
        "</body></html>\n"
    )


def _header(card: Card) -> str:
    finished = text(numbers.moment(card.created))
    kicker = f"{both('Data card of', '数据卡：')} {name(card.name)} · {finished}"
    return (
        f'<header>{TONGUES}<p class="kicker"><b>Isoflop</b> {kicker}</p>'
        f"{samples.heading(card)}{sections.summary(card)}</header>"
    )


def _contents(parts: Sequence[Part]) -> str:
    items = "".join(f'<li><a href="#{part.key}">{part.title}</a></li>' for part in parts)
    return f'<nav aria-label="Contents · 目录"><ol>{items}</ol></nav>'


def _section(number: int, part: Part) -> str:
    return (
        f'<section id="{part.key}" aria-labelledby="{part.key}-h"><h2 id="{part.key}-h">'
        f'<span aria-hidden="true">{number}</span>{part.title}</h2>{part.body}</section>'
    )
