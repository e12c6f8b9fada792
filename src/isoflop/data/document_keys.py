"""The stages that hash documents and gather those that share a hash, for the search of duplicates.

Not for deciding which of them fall (`duplicate_stages`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.engine.records import KEY, read_partition, read_records, write_records
from isoflop.core.recipe import from_dict, to_dict
from isoflop.data.documents import Document
from isoflop.data.duplicates import DuplicateKeys, duplicate_keys
from isoflop.data.duplicates_recipe import DuplicatesConfig
from isoflop.data.judge import ROW_BITS, DocumentIndex, Shard, final_tables, read_judged

FACTS, SHARED = "facts.npy", "shared.npy"
TEXTS, URLS, LINES = "texts.npy", "urls.npy", "lines.npy"
FELL_FOR, KEPT, RANK, BY_RANK = "kinds.npy", "kept.npy", "rank.npy", "by_rank.npy"
"""What the deciding stages hand on, by position: `kinds` and `kept` of `Duplicates`, the rank of
each document; and by rank the position of each."""
RECORD = np.dtype([(KEY, "<u8"), ("document", "<u8")])
_TEXT = np.dtype([(KEY, "<u8"), ("check", "<u8"), ("document", "<u8")])
_FACTS = np.dtype(
    [
        ("asked", "?"),  # whether it may stay; else the rest is zero
        ("size", "<i8"), ("visible", "<i8"), ("tie", "<u8"),  # as in `DuplicateKeys`
        ("text", "<u8", (2,)), ("url", "<u8"), ("lines", "<i4"),
    ]
)  # fmt: skip
_SHARED = np.dtype([("first", "?"), ("document", "<u8")])


def document_keys(
    engine: Engine, shards: Sequence[Shard], config: DuplicatesConfig, labels: Sequence[str]
) -> list[Output]:
    """Hash the documents of each shard that may stay.

    Args:
        labels: The names of the recipe's sources.
    """
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            {"number": shard.number, "source": labels[shard.source]},
            (shard.annotated, shard.judged),
            bytes=int(shard.annotated.statistics["bytes"]),
        )
        for shard in shards
    ]
    asked = DuplicatesConfig(exact=config.exact, url=config.url, lines=config.lines)
    return engine.map("keys", hash_documents, pieces, to_dict(asked))


def hash_documents(work: Work) -> dict[str, Any]:
    """The task: what is known of each document of a shard, and records of its hashes."""
    config = from_dict(DuplicatesConfig, work.parameters, "duplicates")
    annotated, judged = work.inputs
    facts = np.zeros(len(read_judged(judged, ["bytes"])), _FACTS)
    texts, urls, lines = [np.empty(0, _TEXT)], [np.empty(0, RECORD)], [np.empty(0, RECORD)]
    for rows, table in final_tables(annotated, judged, ["id", "source", "url"]):
        found = duplicate_keys(_documents(table), {work.value["source"]: 0}, config)
        telling = np.diff(found.line_bounds)
        facts["asked"][rows] = True
        columns = {"size": found.sizes, "visible": found.visible, "tie": found.ties}
        for name, column in (columns | {"lines": telling}).items():
            facts[name][rows] = column
        number = (rows + (work.value["number"] << ROW_BITS)).astype(np.uint64)
        if config.exact:
            facts["text"][rows] = found.texts
            texts.append(_records(_TEXT, found.texts.T, number))
        if config.url:
            facts["url"][rows] = found.urls
            there = found.urls != 0
            urls.append(_records(RECORD, [found.urls[there]], number[there]))
        lines.append(_records(RECORD, [found.lines], np.repeat(number, telling)))
    np.save(work.out / FACTS, facts)
    for name, records in ((TEXTS, texts), (URLS, urls), (LINES, lines)):
        write_records(work.out / name, np.concatenate(records))
    return {}


def _documents(table: pa.Table) -> list[Document]:
    columns = (table[name].to_pylist() for name in ("id", "text", "source", "url"))
    return [
        Document(i, text, source, "", url) for i, text, source, url in zip(*columns, strict=True)
    ]


def _records(
    dtype: np.dtype[np.void],
    keys: Sequence[NDArray[np.uint64]] | NDArray[np.uint64],
    documents: NDArray[np.uint64],
) -> NDArray[np.void]:
    records: NDArray[np.void] = np.empty(documents.size, dtype)
    for name, column in zip(dtype.names or (), [*keys, documents], strict=True):
        records[name] = column
    return records


# --- what they share -----------------------------------------------------------------------


def shared(engine: Engine, stage: str, keys: Sequence[Output], file: str) -> list[Output]:
    """Gather the documents that share a key, in groups, as `groups` reads them."""
    return engine.group(stage, gather, keys, file)


def gather(work: Work) -> dict[str, Any]:
    """The task: of the records in a range of keys, those whose key another document has too."""
    records = read_partition(work)
    fields = [name for name in records.dtype.names or () if name != "document"]
    records = records[np.lexsort([records["document"], *(records[name] for name in fields[::-1])])]
    repeats = np.zeros(len(records) + 1, bool)
    repeats[1:-1] = True
    for name in fields:
        repeats[1:-1] &= records[name][1:] == records[name][:-1]
    several = repeats[:-1] | repeats[1:]
    found = np.empty(int(several.sum()), _SHARED)
    found["first"] = ~repeats[:-1][several]
    found["document"] = records["document"][several]
    np.save(work.out / SHARED, found)
    return {"records": len(found)}


def groups(
    folders: Sequence[Path], index: DocumentIndex, asked: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of the documents asked for, those that share a key, one partition after the other.

    Returns:
        (R,) the number of the group and (R,) the position of the document, by group.
    """
    for folder in folders:
        records = read_records(folder / SHARED)
        positions = index.positions(np.asarray(records["document"]))
        group = np.cumsum(records["first"]) - 1
        here = asked[positions]
        group, positions = group[here], positions[here]
        several = np.bincount(group)[group] > 1
        yield group[several], positions[several]


def read_facts(folders: Sequence[Path], name: str) -> NDArray[Any]:
    """(D,) what is known of all documents under one name."""
    return np.concatenate([np.asarray(np.load(f / FACTS, mmap_mode="r")[name]) for f in folders])


def keys_of(
    folder: Path, source: int, signatures: NDArray[np.uint32], config: DuplicatesConfig
) -> DuplicateKeys:
    """The keys of a shard's documents as an index of duplicates takes them; without lines."""
    facts = np.load(folder / FACTS)
    return DuplicateKeys(
        sizes=facts["size"],
        visible=facts["visible"],
        sources=np.full(len(facts), source),
        ties=facts["tie"],
        texts=facts["text"] if config.exact else facts["text"][:0],
        urls=facts["url"] if config.url else facts["url"][:0],
        lines=np.empty(0, np.uint64),
        line_bounds=np.zeros(len(facts) + 1, np.int64),
        signatures=signatures,
    )


def shard_index(value: Sequence[tuple[int, int, int]]) -> tuple[DocumentIndex, NDArray[np.int64]]:
    """The index of shards `(number, documents, source)`, and (D,) the source of each document."""
    index = DocumentIndex([(number, documents) for number, documents, _ in value])
    sizes = [stop - start for start, stop in pairwise(index.starts.tolist())]
    return index, np.repeat([source for _, _, source in value], sizes).astype(np.int64)
