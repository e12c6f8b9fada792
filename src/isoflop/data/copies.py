"""Finds texts that were seen before, whole or for the most part; not for near duplicates.

A document is dropped when a document kept before it has the same text, or when more than half of
its distinct telling lines stand in documents kept before it: vendored copies and generated
variants would otherwise leak from the training text into the held-out text. "Before" is the order
of the recipe's sources and of the reading within each, whoever read what when.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.engine.records import read_partition, read_records
from isoflop.data.judge import (
    LINE_RECORDS,
    MIN_LINES,
    TEXT_RECORDS,
    DocumentIndex,
    Shard,
    read_judged,
)

FATES, SHARED = "fates.npy", "shared.npy"
KEPT, DECIDED, SAME_TEXT, SEEN_LINES = range(4)
"""What `fates.npy` says of each document; DECIDED: it was dropped before."""
_UNDECIDED = 255


def find_copies(engine: Engine, shards: Sequence[Shard]) -> Output:
    """Decide which documents are copies of others.

    Returns:
        An output whose `fates.npy` holds (documents,) uint8, in the order of the shards.
    """
    judged = [shard.judged for shard in shards]
    texts = engine.group("texts", shared_records, judged, TEXT_RECORDS)
    lines = engine.group("lines", shared_records, judged, LINE_RECORDS)
    value = {
        "shards": [(shard.number, shard.documents) for shard in shards],
        "parts": [len(texts), len(lines)],
    }
    (fates,) = engine.map("copies", resolve, [Piece("all", value, (*texts, *lines, *judged))])
    return fates


def shared_records(work: Work) -> dict[str, Any]:
    """The task: of the records in a range of keys, those whose key another document has too."""
    records = read_partition(work)
    fields = [name for name in records.dtype.names or () if name != "document"]
    order = np.lexsort([records["document"], *(records[name] for name in reversed(fields))])
    records = records[order]
    repeats = np.zeros(len(records) + 1, bool)
    repeats[1:-1] = True
    for name in fields:
        repeats[1:-1] &= records[name][1:] == records[name][:-1]
    shared = repeats[:-1] | repeats[1:]
    found = np.empty(int(shared.sum()), [("first", "?"), ("document", "<u8")])
    found["first"] = ~repeats[:-1][shared]
    found["document"] = records["document"][shared]
    np.save(work.out / SHARED, found)
    return {"records": len(found)}


def resolve(work: Work) -> dict[str, Any]:
    """The task: the fate of every document, from what it shares with those before it.

    A document's fate follows from the fates of earlier ones alone, so there is one answer. It is
    found in rounds: what can be said whatever becomes of the documents still open is settled. The
    first open document always can be.

    Memory: some 40 bytes a document and one partition of records.
    """
    index = DocumentIndex(work.value["shards"])
    n_texts, n_lines = work.value["parts"]
    texts, lines = work.inputs[:n_texts], work.inputs[n_texts : n_texts + n_lines]
    fates = np.full(index.total, _UNDECIDED, np.uint8)
    telling = np.zeros(index.total, np.int32)
    for begin, end, folder in zip(
        index.starts, index.starts[1:], work.inputs[n_texts + n_lines :], strict=False
    ):
        table = read_judged(folder, ["reason", "lines"])
        fates[begin:end][[reason != "" for reason in table["reason"].to_pylist()]] = DECIDED
        telling[begin:end] = table["lines"].to_numpy()
    rounds = 0
    while (fates == _UNDECIDED).any():
        rounds += 1
        same_surely, same_maybe = _count_earlier(texts, index, fates)
        lines_surely, lines_maybe = _count_earlier(lines, index, fates)
        few = telling < MIN_LINES
        open_ = fates == _UNDECIDED
        unique = open_ & (same_maybe == 0)
        fates[open_ & (same_surely > 0)] = SAME_TEXT
        fates[unique & ~few & (2 * lines_surely > telling)] = SEEN_LINES
        fates[unique & (few | (2 * lines_maybe <= telling))] = KEPT
    np.save(work.out / FATES, fates)
    return {"rounds": rounds, "dropped": int((fates > DECIDED).sum())}


def _count_earlier(
    folders: Sequence[Path], index: DocumentIndex, fates: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each open document, how many of its keys an earlier one has: kept; kept or open."""
    surely, maybe = np.zeros((2, index.total), np.int32)
    for folder in folders:
        records = read_records(folder / SHARED)
        if not len(records):
            continue
        documents = index.positions(records["document"])
        at_first, fate = np.flatnonzero(records["first"]), fates[documents]
        is_open = fate == _UNDECIDED
        for counts, counted in ((surely, fate == KEPT), (maybe, is_open | (fate == KEPT))):
            before = np.cumsum(counted) - counted
            sizes = np.diff(np.append(at_first, len(records)))
            since_first = before - np.repeat(before[at_first], sizes)
            np.add.at(counts, documents[is_open & (since_first > 0)], 1)
    return surely, maybe
