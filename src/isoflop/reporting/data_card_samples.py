"""The sections of a data card that show documents; every word in them is a stranger's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, zip_longest

from isoflop.reporting import data_card_words as words
from isoflop.reporting import numbers
from isoflop.reporting.data_card_markup import (
    Part,
    missing,
    name,
    remark,
    stranger,
)
from isoflop.reporting.data_card_records import Card, Example
from isoflop.reporting.markup import details
from isoflop.reporting.tongues import both

_PAIRS = 6


def side_by_side(card: Card, characters: int) -> Part:
    """Kept documents on one side, dropped ones of many reasons on the other."""
    kept = [e for e in card.examples if not e.reason][:_PAIRS]
    by_reason: dict[str, list[Example]] = {}
    for example in card.examples:
        if example.reason and example.excerpt:
            by_reason.setdefault(example.reason, []).append(example)
    # One of each reason before a second of any.
    rounds = chain.from_iterable(zip_longest(*by_reason.values()))
    dropped = [example for example in rounds if example is not None][:_PAIRS]
    title = both("Samples, kept and dropped", "保留与丢弃的样例")
    none = missing("No text of these documents is on file.", "没有留存这些文档的文字。")
    columns = []
    for side, english, chinese, shown in (
        ("stays", "Kept", "保留", kept),
        ("goes", "Dropped", "丢弃", dropped),
    ):
        body = "".join(_document(e, characters) for e in shown) or none
        columns.append(f'<div class="{side}"><h3>{both(english, chinese)}</h3>{body}</div>')
    return Part("samples", title, f'<div class="pairs">{"".join(columns)}</div>')


def by_rule(card: Card, characters: int) -> Part:
    """Up to ten documents that each rule dropped, one click away."""
    title = both("Dropped, rule by rule", "各规则丢弃的样例")
    parts = []
    for row in card.dropped:
        shown = [example for example in card.examples if example.reason == row.name]
        phrase = words.of_reason(row.name)
        meaning = f" <small>{both(*phrase)}</small>" if phrase else ""
        count = both(f"{row.documents:,} documents", f"{row.documents:,} 篇")
        summary = f'<span class="reason">{name(row.name)}</span>{meaning} <small>· {count}</small>'
        body = "".join(_document(e, characters, with_reason=False) for e in shown)
        body = body or missing("No example is on file.", "没有留存样例。")
        parts.append(f'<details class="rule"><summary>{summary}</summary>{body}</details>')
    body = "".join(parts) or missing("Nothing was dropped.", "没有丢弃任何文档。")
    return Part("examples", title, body)


def _document(example: Example, characters: int, *, with_reason: bool = True) -> str:
    """A document's place and the beginning of its text."""
    facts = [f"<b>{name(example.reason)}</b>"] if with_reason and example.reason else []
    facts.append(name(example.id))
    facts += [name(f) for f in (example.source, example.language) if f and f != "und"]
    if example.url:
        facts.append(name(example.url))
    if example.bytes:
        facts.append(numbers.size(example.bytes))
    text = example.excerpt.strip("\n")
    cut = text[:characters]
    more = (
        "…" if len(cut) < len(text) or len(text.encode("utf-8", "replace")) < example.bytes else ""
    )
    shown = f'<pre dir="auto">{stranger(cut + more)}</pre>' if cut else ""
    return f'<div class="document"><p>{" · ".join(facts)}</p>{shown}</div>'


def origin(card: Card) -> Part:
    """The recipe, the seed, and how to make the corpus again."""
    facts: Sequence[tuple[str, str]] = [
        (both("Corpus", "语料库"), name(card.name)),
        (both("Finished", "完成时间"), stranger(numbers.moment(card.created))),
        ("Isoflop", stranger(card.version)),
        (both("Seed", "随机种子"), "–" if card.seed is None else f"{card.seed}"),
        (
            both("SHA-256 of the recipe", "配方 SHA-256"),
            f"<code>{stranger(card.recipe_sha256)}</code>",
        ),
    ]
    items = "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in facts)
    recipe = json.dumps(card.recipe, indent=2, ensure_ascii=False)
    note = remark(
        "The same recipe over the same sources gives the same documents.",
        "同一配方作用于同样的来源，得到同样的文档。",
    )
    shown = details("Recipe · 配方", f'<pre class="code">{stranger(recipe[:60_000])}</pre>')
    body = f'{note}<dl class="facts">{items}</dl>{shown}'
    return Part("origin", both("How it was made", "制作方式"), body)


def heading(card: Card) -> str:
    """The card in one sentence."""
    share = 100 * card.kept.bytes / card.read.bytes if card.read.bytes else 0.0
    documents, size = f"{card.kept.documents:,}", numbers.size(card.kept.bytes)
    return (
        "<h1>"
        + both(
            f"{documents} documents with {size} of text were kept, {share:.0f}\u202f% of what "
            "was read.",
            f"保留 {documents} 篇文档、{size} 文本，占读入的 {share:.0f}\u202f%。",
        )
        + "</h1>"
    )
