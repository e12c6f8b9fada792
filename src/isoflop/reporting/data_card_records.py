"""What a data card tells of a corpus, as values; not for reading (data_card_read) or drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BINS_PER_OCTAVE = 2


@dataclass(frozen=True)
class Row:
    """A name with what goes by it."""

    name: str
    documents: int
    bytes: int


@dataclass(frozen=True)
class Source:
    """One source of the recipe: what it gave and what of it was kept."""

    name: str
    read: Row
    kept: Row


@dataclass(frozen=True)
class Example:
    """A document to look at."""

    reason: str
    """Why it was dropped; empty when it was kept."""
    id: str
    source: str = ""
    language: str = ""
    url: str = ""
    bytes: int = 0
    excerpt: str = ""


@dataclass(frozen=True)
class Lengths:
    """How long the kept documents are, in bytes of UTF-8."""

    first_bin: int
    """The first bin begins at 2^(first_bin / BINS_PER_OCTAVE) bytes."""
    documents: tuple[int, ...]
    """In each bin, half an octave wide."""
    quantiles: Mapping[str, float]
    """`5 %`, `50 %` … → bytes."""


@dataclass(frozen=True)
class Cluster:
    """Documents that are copies of each other."""

    size: int
    kept: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Duplicates:
    """What the search for copies found."""

    documents: int
    clusters: int
    removed: int
    by_kind: Mapping[str, int]
    largest: tuple[Cluster, ...]


@dataclass(frozen=True)
class Task:
    """An evaluation set that was looked for in the text."""

    name: str
    items: int
    contaminated: int
    documents: int


@dataclass(frozen=True)
class Contamination:
    """What was found of evaluation sets."""

    tasks: tuple[Task, ...]
    dropped: int


@dataclass(frozen=True)
class Tokens:
    """Tokens of the kept text, counted on a sample of each language."""

    tokenizer: str
    vocab_size: int
    total: float
    by_language: Mapping[str, tuple[float, float]]
    """Language → tokens, and bytes per token."""


@dataclass(frozen=True)
class Card:
    """All that a data card tells."""

    name: str
    created: str
    version: str
    recipe_sha256: str
    seed: int | None
    read: Row
    kept: Row
    dropped: tuple[Row, ...]
    splits: tuple[Row, ...]
    languages: tuple[Row, ...]
    sources: tuple[Source, ...]
    rejects: int
    lengths: Lengths
    hosts: tuple[Row, ...]
    """Most text first; documents without a URL are left out."""
    with_url: int
    licences: tuple[Row, ...]
    """As the documents' `meta` says; the empty name is for those that say nothing."""
    pii_action: str
    """`keep` means that nobody looked."""
    pii: tuple[Row, ...]
    """By kind: the documents with it, and how many pieces (in `bytes`)."""
    examples: tuple[Example, ...]
    duplicates: Duplicates | None
    contamination: Contamination | None
    tokens: Tokens | None
    recipe: Mapping[str, Any]
