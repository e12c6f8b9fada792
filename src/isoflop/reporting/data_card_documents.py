"""One pass over the kept documents of a corpus, for its data card; not for the other files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isoflop.data.corpus import read_row_groups
from isoflop.data.tokenizer import Tokenizer
from isoflop.reporting.data_card_records import BINS_PER_OCTAVE, Example, Lengths, Row, Tokens

MOST_EXAMPLES = 10
"""Of each reason."""
EXCERPT_CHARACTERS = 500
_SAMPLE_BYTES = 2_000_000
_LICENCE_KEYS = ("license", "licence", "licenses")


class Documents:
    """What is counted in one pass over the kept documents."""

    def __init__(self, corpus: Path, tokenizer: Tokenizer | None) -> None:
        self.sizes: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self.hosts: dict[str, tuple[int, int]] = {}
        self.licences: dict[str, tuple[int, int]] = {}
        self.examples: list[Example] = []
        self._tokenizer = tokenizer
        self._sampled: dict[str, tuple[int, int]] = {}
        for table in _row_groups(corpus):
            sizes = np.asarray(pc.binary_length(table["text"]).to_numpy(), np.int64)
            self.sizes.append(sizes)
            columns = (table[name].to_pylist() for name in ("url", "meta"))
            for url, meta, size in zip(*columns, sizes.tolist(), strict=True):
                if url:
                    _add(self.hosts, host_of(url), 1, size)
                _add(self.licences, _licence_of(meta), 1, size)
            self._take_examples(table, sizes)
            if tokenizer is not None:
                self._count_tokens(table, tokenizer)

    def _take_examples(self, table: pa.Table, sizes: Any) -> None:
        """A few documents spread over the first row group, where no examples are on file."""
        if self.examples:
            return
        step = max(1, table.num_rows // MOST_EXAMPLES)
        for at in range(0, table.num_rows, step):
            row = table.slice(at, 1).to_pylist()[0]
            excerpt = row["text"][:EXCERPT_CHARACTERS]
            words = (row["id"], row["source"], row["language"], row["url"])
            self.examples.append(Example("", *words, int(sizes[at]), excerpt))
        del self.examples[MOST_EXAMPLES:]

    def _count_tokens(self, table: pa.Table, tokenizer: Tokenizer) -> None:
        for text, language in zip(
            table["text"].to_pylist(), table["language"].to_pylist(), strict=True
        ):
            if self._sampled.get(language, (0, 0))[1] < _SAMPLE_BYTES:
                _add(self._sampled, language, len(tokenizer.encode(text)), len(text.encode()))

    def tokens(self, languages: tuple[Row, ...]) -> Tokens | None:
        """Tokens of all kept text, from those of the sample."""
        if self._tokenizer is None:
            return None
        by_language = {}
        for row in languages:
            tokens, size = self._sampled.get(row.name, (0, 0))
            if tokens:
                by_language[row.name] = (row.bytes * tokens / size, size / tokens)
        total = sum(tokens for tokens, _ in by_language.values())
        name = self._tokenizer.directory.resolve().name
        return Tokens(name, self._tokenizer.vocab_size, total, by_language)


def _row_groups(corpus: Path) -> Iterator[pa.Table]:
    """The documents of all splits, which may be several files each, a row group at a time."""
    columns = ["id", "text", "source", "url", "language", "meta"]
    paths = corpus.glob("*/documents*.parquet")
    for path in sorted(paths, key=lambda path: (path.parent.name != "train", path)):
        yield from read_row_groups(path, columns)


def host_of(url: str) -> str:
    """The host of a URL, without port and `www.`; the scheme's name or `?` where it has none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "?"
    return host.removeprefix("www.") or parts.scheme or "?"


def _licence_of(meta: str) -> str:
    """What `meta` says of the licence; empty where it says nothing."""
    if "licen" not in meta:
        return ""
    try:
        values = json.loads(meta)
        found = next((values[key] for key in _LICENCE_KEYS if values.get(key)), "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def _add(counts: dict[str, tuple[int, int]], name: str, first: int, second: int) -> None:
    old = counts.get(name, (0, 0))
    counts[name] = old[0] + first, old[1] + second


def rows(counts: Mapping[str, tuple[int, int]]) -> tuple[Row, ...]:
    rows = [Row(name, documents, size) for name, (documents, size) in counts.items()]
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.name)))


def lengths(parts: list[np.ndarray[Any, np.dtype[np.int64]]]) -> Lengths:
    sizes = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    if sizes.size == 0:
        return Lengths(0, (), {})
    bins = np.floor(BINS_PER_OCTAVE * np.log2(np.maximum(sizes, 1))).astype(np.int64)
    first = int(bins.min())
    shares = (0, 5, 25, 50, 75, 95, 100)
    quantiles = np.quantile(sizes, [share / 100 for share in shares])
    return Lengths(
        first,
        tuple(np.bincount(bins - first).tolist()),
        {f"{share} %": float(q) for share, q in zip(shares, quantiles, strict=True)},
    )
