"""The stages of a build that find long passages which stand elsewhere too, and cut them out.

Not for how they are found (`substrings`): the same fingerprints and windows, grouped by hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.engine.records import KEY, read_partition, write_records
from isoflop.data.document_keys import FELL_FOR, RANK
from isoflop.data.duplicates import MAX_REPEATED_SHARE
from isoflop.data.judge import Shard, final_tables, rewrite
from isoflop.data.recipe import DataRecipe
from isoflop.data.substrings import (
    covered,
    fingerprints,
    later_windows,
    merged,
    occur_again,
    windows,
    without_spans,
)

REPEATED = "mostly repeated passages"
_FINGERPRINTS, _AGAIN, _WINDOWS, _SPANS = "prints.npy", "again.npy", "windows.npy", "spans.npy"
_PRINT = np.dtype([(KEY, "<u8"), ("document", "<u8"), ("place", "<u4")])
_WINDOW = np.dtype([(KEY, "<u8"), ("rank", "<u8"), ("document", "<u8"), ("begin", "<u4")])
_SPAN = np.dtype([("document", "<u8"), ("begin", "<u4"), ("end", "<u4")])


def cut_passages(
    engine: Engine, shards: Sequence[Shard], fates: Output, recipe: DataRecipe
) -> list[Shard]:
    """Find repeated passages among the documents that are left, and cut or drop.

    Returns:
        The shards with decisions anew; their statistics count what was cut (`cut`).
    """
    starts = np.cumsum([0, *(shard.documents for shard in shards)]).tolist()
    length = recipe.duplicates.substring_characters

    def pieces(*inputs: Sequence[Output]) -> list[Piece]:
        return [
            Piece(
                f"{shard.source:03d}-{shard.piece:06d}",
                starts[number],
                (shard.annotated, shard.judged, fates, *(out for part in inputs for out in part)),
                bytes=int(shard.annotated.statistics["bytes"]),
            )
            for number, shard in enumerate(shards)
        ]

    printed = engine.map("fingerprints", print_documents, pieces(), length)
    again = engine.group("passages", find_again, printed, _FINGERPRINTS)
    hashed = engine.map("windows", hash_windows, pieces(again), length)
    spans = engine.group("repeats", find_spans, hashed, _WINDOWS, length)
    parameters = {"action": recipe.duplicates.substrings, "seed": recipe.seed}
    judged = engine.map("cut", cut_documents, pieces(spans), parameters)
    return [
        Shard(shard.source, shard.piece, shard.annotated, own)
        for shard, own in zip(shards, judged, strict=True)
    ]


def print_documents(work: Work) -> dict[str, Any]:
    """The task: the fingerprints of the documents of a shard that are left."""
    found = [np.empty(0, _PRINT)]
    for _, position, text in _texts(work):
        if len(text) >= work.parameters:
            hashes, places = fingerprints(text, work.parameters)
            records = np.empty(hashes.size, _PRINT)
            records[KEY], records["document"], records["place"] = hashes, position, places
            found.append(records)
    write_records(work.out / _FINGERPRINTS, np.concatenate(found))
    return {}


def find_again(work: Work) -> dict[str, Any]:
    """The task: of the fingerprints in a range of hashes those that occur more than once."""
    records = read_partition(work)
    records = records[occur_again(records[KEY])]
    np.save(work.out / _AGAIN, records[np.lexsort((records["place"], records["document"]))])
    return {}


def hash_windows(work: Work) -> dict[str, Any]:
    """The task: all windows around the repeated fingerprints of a shard's documents."""
    rank = np.load(work.inputs[2] / RANK, mmap_mode="r")
    repeated = [np.load(folder / _AGAIN, mmap_mode="r") for folder in work.inputs[3:]]
    found = [np.empty(0, _WINDOW)]
    for _, position, text in _texts(work):
        places = np.concatenate([part["place"] for part in _of(repeated, position)])
        if not places.size:
            continue
        hashes, begins = windows(text, work.parameters, np.sort(places.astype(np.int64)))
        records = np.empty(hashes.size, _WINDOW)
        records[KEY], records["begin"] = hashes, begins
        records["rank"], records["document"] = rank[position], position
        found.append(records)
    write_records(work.out / _WINDOWS, np.concatenate(found))
    return {}


def find_spans(work: Work) -> dict[str, Any]:
    """The task: of equal windows in a range of hashes all but the first, as spans of documents."""
    records = read_partition(work)
    records = records[np.lexsort((records["begin"], records["rank"]))]
    documents, begins = (records[name].astype(np.int64) for name in ("document", "begin"))
    later = later_windows(records[KEY], documents, begins, work.parameters)
    documents, begins = documents[later], begins[later]
    found = [np.empty(0, _SPAN)]
    edges = np.flatnonzero(np.diff(documents, prepend=-1, append=-1))
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        own = begins[first:last]
        spans = merged(np.stack([own, own + work.parameters], axis=1))
        part = np.empty(len(spans), _SPAN)
        part["document"], part["begin"], part["end"] = documents[first], spans[:, 0], spans[:, 1]
        found.append(part)
    all_spans = np.concatenate(found)
    order = np.argsort(all_spans["document"], kind="stable")
    np.save(work.out / _SPANS, all_spans[order])
    return {}


def cut_documents(work: Work) -> dict[str, Any]:
    """The task: the decisions on a shard once repeated passages are cut or make documents fall."""
    repeated = [np.load(folder / _SPANS, mmap_mode="r") for folder in work.inputs[3:]]
    changes: dict[int, str | None] = {}
    counts = {"documents": 0, "characters": 0}
    for row, position, text in _texts(work):
        parts = [np.stack([p["begin"], p["end"]], axis=1) for p in _of(repeated, position)]
        spans = merged(np.concatenate(parts).astype(np.int64))
        if not len(spans):
            continue
        size = covered({row: spans}, row)
        if work.parameters["action"] == "drop":
            left = text if size <= MAX_REPEATED_SHARE * len(text) else ""
        else:
            left = without_spans(text, spans).strip("\n")
        if not left.strip():
            changes[row] = None
        elif work.parameters["action"] == "cut":
            changes[row] = f"{left}\n"
            counts["documents"] += 1
            counts["characters"] += size
    kept = rewrite(work, work.inputs[1], changes, REPEATED, work.parameters["seed"])
    return {"bytes": kept, "cut": counts}


def _texts(work: Work) -> Iterator[tuple[int, int, str]]:
    """Row, position and final text of the documents of a shard that are left."""
    annotated, judged, fates = work.inputs[:3]
    kinds = np.load(fates / FELL_FOR, mmap_mode="r")
    for rows, table in final_tables(annotated, judged, []):
        left = kinds[rows + work.value] == -1
        texts = table["text"].filter(left).to_pylist()
        for row, text in zip(rows[left].tolist(), texts, strict=True):
            yield row, row + work.value, text


def _of(parts: Sequence[NDArray[np.void]], document: int) -> Iterator[NDArray[np.void]]:
    """The records of a document in files that are sorted by it; at least an empty one."""
    for records in parts:
        edges = np.array([document, document + 1], np.uint64)
        begin, end = np.searchsorted(records["document"], edges).tolist()
        yield records[begin:end]
