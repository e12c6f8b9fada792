"""Which documents of a corpus fall as duplicates of which: keys by document, then one decision.

Not for removing them. `duplicate_keys` maps a batch of documents to small keys; `find_duplicates`
decides over the keys of all, kind after kind: text, address, MinHash, lines, passages. A document
that fell takes no others with it. The answer is a function of the set of documents alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.data.documents import Document
from isoflop.data.duplicates_recipe import DuplicatesConfig
from isoflop.data.exact_duplicates import line_keys, same_key, same_lines, text_keys, url_keys
from isoflop.data.minhash import PERMUTATIONS, signatures
from isoflop.data.near_duplicates import (
    ShingleSets,
    confirmed_clusters,
    members,
    near_clusters,
)
from isoflop.data.shingles import shingle_sets
from isoflop.data.substrings import covered, repeated_passages

KINDS = ("exact", "url", "near", "line", "substring")
"""The kinds of duplicates in the order in which they are looked for."""

MAX_REPEATED_SHARE = 0.5
"""Documents of which more than this share is repeated passages fall where they are to `drop`."""

NOT_ASKED = -2
"""In place of a kind: a document that was dropped before, and takes no part."""
_BATCH_CHARACTERS = 4_000_000
_N_LARGEST = 10
_N_IDS = 10

TextsOf = Callable[[NDArray[np.int64]], Iterator[str]]
"""Gives the texts of documents by their ascending numbers, as often as it is called."""


@dataclass(frozen=True)
class DuplicateKeys:
    """What is known of D documents to tell duplicates; kinds switched off have empty arrays.

    Memory: 56 bytes a document, 440 more with `near`, and 8 for every distinct line with `lines`.
    """

    sizes: NDArray[np.int64]
    """(D,) characters."""
    visible: NDArray[np.int64]
    """(D,) characters but spaces, tabs and line ends, so that layout makes no text longer."""
    sources: NDArray[np.int64]
    """(D,) place of the document's source in the recipe."""
    ties: NDArray[np.uint64]
    """(D,) hash of source and id, which orders documents that are otherwise alike."""
    texts: NDArray[np.uint64]
    """(D, 2) hash of the text."""
    urls: NDArray[np.uint64]
    """(D,) hash of the address, 0 without one."""
    lines: NDArray[np.uint64]
    """(L,) hashes of the lines of one document after the other."""
    line_bounds: NDArray[np.int64]
    """(D + 1,) the lines of document i lie from bound i to bound i + 1."""
    signatures: NDArray[np.uint32]
    """(D, 110) MinHash signatures."""

    def __len__(self) -> int:
        return self.sizes.size

    def take(self, numbers: NDArray[np.int64]) -> DuplicateKeys:
        """The keys of some of the documents, without their lines."""
        return DuplicateKeys(
            **{
                name: column[numbers] if len(column := getattr(self, name)) else column
                for name in ("sizes", "visible", "sources", "ties", "texts", "urls", "signatures")
            },
            lines=self.lines[:0],
            line_bounds=np.zeros(numbers.size + 1, np.int64),
        )


@dataclass(frozen=True)
class Duplicates:
    """Which of D documents fall, and which one stays in place of each."""

    kept: NDArray[np.int64]
    """(D,) the number of the document kept in its place; its own for one that is kept; -1 where
    that is a document of the index, or several (passages)."""
    kinds: NDArray[np.int8]
    """(D,) index into `KINDS` of what the document fell for; -1 for one that is kept, `NOT_ASKED`
    for one that took no part."""
    cuts: Mapping[int, NDArray[np.int64]]
    """By document number, (K, 2) begin and end of the passages to cut out of a kept document."""

    def report(self, id_of: Callable[[int], str]) -> dict[str, Any]:
        """The content of `duplicates.json`; `id_of` gives the id of a document by its number."""
        fallen = np.flatnonzero(self.kinds >= 0)
        counts = Counter(self.kinds[fallen].tolist())
        sizes = np.bincount(self.kept[self.kept >= 0], minlength=self.kept.size)
        largest = np.lexsort((np.arange(sizes.size), -sizes))[:_N_LARGEST]
        return {
            "documents": int((self.kinds != NOT_ASKED).sum()),
            "clusters": int((sizes > 1).sum()),
            "removed": int(fallen.size),
            "by_kind": {kind: counts[number] for number, kind in enumerate(KINDS)},
            "cut": {
                "documents": len(self.cuts),
                "characters": sum(covered(self.cuts, number) for number in self.cuts),
            },
            "largest": [
                {
                    "size": int(sizes[best]),
                    "kept": id_of(int(best)),
                    "ids": [
                        id_of(number)
                        for number in np.flatnonzero(self.kept == best).tolist()
                        if number != best
                    ][:_N_IDS],
                }
                for best in largest.tolist()
                if sizes[best] > 1
            ],
        }


def duplicate_keys(
    documents: Sequence[Document], order: Mapping[str, int], config: DuplicatesConfig
) -> DuplicateKeys:
    """The keys of a batch of documents; a pure function of each of them.

    Args:
        order: Place of every source in the recipe, by the source's label.
    """
    texts = [document.text for document in documents]
    n = len(texts)
    lines, bounds = line_keys(texts if config.lines else [""] * n)
    return DuplicateKeys(
        sizes=np.fromiter(map(len, texts), np.int64, n),
        visible=np.fromiter(map(_visible, texts), np.int64, n),
        sources=np.fromiter((order[d.source] for d in documents), np.int64, n),
        ties=np.frombuffer(b"".join(map(_tie, documents)), np.uint64),
        texts=text_keys(texts) if config.exact else np.empty((0, 2), np.uint64),
        urls=url_keys([d.url for d in documents]) if config.url else np.empty(0, np.uint64),
        lines=lines,
        line_bounds=bounds,
        signatures=signatures(texts) if config.near else np.empty((0, PERMUTATIONS), np.uint32),
    )


def joined_keys(parts: Sequence[DuplicateKeys]) -> DuplicateKeys:
    """The keys of the documents of several batches, in the order of the batches."""
    offsets = np.cumsum([0, *(part.lines.size for part in parts)])
    bounds = [p.line_bounds[1:] + offset for p, offset in zip(parts, offsets[:-1], strict=True)]
    return DuplicateKeys(
        sizes=np.concatenate([p.sizes for p in parts]),
        visible=np.concatenate([p.visible for p in parts]),
        sources=np.concatenate([p.sources for p in parts]),
        ties=np.concatenate([p.ties for p in parts]),
        texts=np.concatenate([p.texts for p in parts]),
        urls=np.concatenate([p.urls for p in parts]),
        lines=np.concatenate([p.lines for p in parts]),
        line_bounds=np.concatenate([[0], *bounds]),
        signatures=np.concatenate([p.signatures for p in parts]),
    )


def preference(
    visible: NDArray[np.int64],
    sources: NDArray[np.int64],
    ties: NDArray[np.uint64],
    prefer: str,
    capped: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """(D,) the rank of each document: of duplicates the one of least rank stays.

    `longest`: more visible characters first, then the earlier source; `first`: the earlier source
    first, then more of them. A hash of source and id settles the rest.

    Args:
        visible, sources, ties: As in `DuplicateKeys`.
        capped: (D,) documents of sources that are read only in part. They come after all others
            and in the order of the array, that of reading: what is read beyond a cap then takes
            nothing away.
    """
    columns = (-visible, sources)
    first, second = columns if prefer == "longest" else columns[::-1]
    last = np.zeros(visible.size, np.bool_) if capped is None else capped
    first = np.where(last, sources, first)
    second = np.where(last, np.arange(visible.size), second)
    order = np.lexsort((ties, second, first, last))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return rank


def find_duplicates(
    keys: DuplicateKeys,
    config: DuplicatesConfig,
    texts_of: TextsOf,
    known: NDArray[np.int8] | None = None,
) -> Duplicates:
    """Decide which documents fall.

    Args:
        texts_of: Texts by number; asked for those of near duplicates (once) and, where passages
            are looked for, for all that are left (twice or more).
        known: (D,) index into `KINDS` for documents that an index of earlier ones holds, else -1.

    Returns:
        Memory beside the keys: some 60 bytes a document, with `near` 4 bytes for every distinct
        run of five tokens in near duplicates; see `repeated_passages`.
    """
    rank = preference(keys.visible, keys.sources, keys.ties, config.prefer)
    work = Decision(np.full(len(keys), -1, np.int8) if known is None else known)
    if config.exact:
        alive = work.alive()
        work.drop("exact", alive, alive[same_key(keys.texts[alive], rank[alive])])
    if config.url:
        alive = work.alive()
        alive = alive[keys.urls[alive] != 0]
        work.drop("url", alive, alive[same_key(keys.urls[alive], rank[alive])])
    if config.near:
        alive = work.alive()
        clusters = _near(keys, rank, alive, config.similarity, texts_of)
        by_rank = np.argsort(rank)
        work.drop("near", alive, by_rank[clusters[alive]])
    if config.lines:
        alive = work.alive()
        counts = np.diff(keys.line_bounds)[alive]
        of_alive = np.zeros(len(keys), np.bool_)
        of_alive[alive] = True
        lines = keys.lines[np.repeat(of_alive, np.diff(keys.line_bounds))]
        bounds = np.concatenate([[0], np.cumsum(counts)])
        work.drop("line", alive, alive[same_lines(lines, bounds, rank[alive])])
    cuts: dict[int, NDArray[np.int64]] = {}
    if config.substrings != "keep":
        cuts = _passages(keys, rank, work.alive(), config.substring_characters, texts_of)
    if config.substrings == "drop":
        mostly = [n for n in cuts if covered(cuts, n) > MAX_REPEATED_SHARE * keys.sizes[n]]
        work.drop("substring", np.array(mostly, np.int64), np.full(len(mostly), -1))
        cuts = {}
    return Duplicates(work.representatives(), work.kinds, cuts)


def documents_duplicates(
    documents: Sequence[Document], config: DuplicatesConfig, order: Mapping[str, int] | None = None
) -> Duplicates:
    """The duplicates among documents held in memory.

    Args:
        order: Place of every source by its label; alphabetical when omitted.
    """
    if order is None:
        order = {name: n for n, name in enumerate(sorted({d.source for d in documents}))}
    keys = duplicate_keys(documents, order, config)
    return find_duplicates(keys, config, lambda ns: (documents[n].text for n in ns.tolist()))


class Decision:
    """What fell so far, and for what.

    Args:
        kinds: (D,) as `Duplicates.kinds`, of what fell before.
        kept: (D,) as `Duplicates.kept`; when omitted, what fell fell for documents of an index.
    """

    def __init__(self, kinds: NDArray[np.int8], kept: NDArray[np.int64] | None = None) -> None:
        self.kinds = kinds.copy()
        self._kept = np.where(kinds >= 0, -1, np.arange(kinds.size)) if kept is None else kept

    def alive(self) -> NDArray[np.int64]:
        """The documents that are still there."""
        return np.flatnonzero(self.kinds == -1)

    def drop(self, kind: str, numbers: NDArray[np.int64], best: NDArray[np.int64]) -> None:
        """Those of `numbers` fall of which another one is the best."""
        falls = numbers != best
        self.kinds[numbers[falls]] = KINDS.index(kind)
        self._kept[numbers[falls]] = best[falls]

    def representatives(self) -> NDArray[np.int64]:
        """(D,) what stands for each document, where that fell itself: what stands for that."""
        kept = self._kept
        while True:
            above = np.where(kept >= 0, kept[kept], -1)
            if np.array_equal(above, kept):
                return kept
            kept = above


def _near(
    keys: DuplicateKeys,
    rank: NDArray[np.int64],
    alive: NDArray[np.int64],
    similarity: float,
    texts_of: TextsOf,
) -> NDArray[np.int64]:
    loose = near_clusters(keys.signatures, rank, similarity, alive)
    some = members(loose)
    rows = np.full(len(keys), -1)
    rows[some] = np.arange(some.size)
    hashes: list[NDArray[np.uint32]] = []
    sizes: list[NDArray[np.int64]] = []
    for batch in _batches(texts_of(some)):
        found, bounds = shingle_sets(batch)
        hashes.append(found)
        sizes.append(np.diff(bounds))
    all_sizes = np.concatenate([np.zeros(1, np.int64), *sizes])
    sets = ShingleSets(
        rows, np.concatenate([np.empty(0, np.uint32), *hashes]), np.cumsum(all_sizes)
    )
    return confirmed_clusters(keys.signatures, rank, loose, sets, similarity)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _passages(
    keys: DuplicateKeys,
    rank: NDArray[np.int64],
    alive: NDArray[np.int64],
    length: int,
    texts_of: TextsOf,
) -> dict[int, NDArray[np.int64]]:
    long_enough = alive[keys.sizes[alive] >= length]

    def read() -> Iterator[tuple[int, str]]:
        return zip(long_enough.tolist(), texts_of(long_enough), strict=True)

    return repeated_passages(read, rank, length)


def _visible(text: str) -> int:
    return len(text) - sum(map(text.count, " \n\t\r"))


def _tie(document: Document) -> bytes:
    identity = f"{document.source}\0{document.id}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(identity, digest_size=8).digest()
