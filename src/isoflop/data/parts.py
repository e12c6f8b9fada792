"""The stage that writes the kept documents, and puts its files into the finished corpus.

A split is one Parquet file, or several of about 256 MB of text, each written by one task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from isoflop.core.engine import Engine, Output, Piece, Work, link_file
from isoflop.data.annotated import ROW_GROUP_BYTES, meta_json, read_tables
from isoflop.data.choose import SPLITS, choices_of
from isoflop.data.judge import Shard, read_judged
from isoflop.data.language import UNKNOWN

PART_BYTES = 256_000_000
_DOCUMENTS = "documents.parquet"
_COLUMNS = ("id", "text", "source", "url", "language", "meta")
_SCHEMA = pa.schema([(name, pa.string()) for name in _COLUMNS])


def part_path(path: Path, number: int) -> Path:
    """The file of part `number`: `path` itself for the first, then `…-00001.parquet` …"""
    return path if number == 0 else path.with_stem(f"{path.stem}-{number:05d}")


def part_paths(path: Path) -> list[Path]:
    """All the files of which `path` is the first."""
    return [path, *sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))]


def cut_into_parts(shards: Sequence[Shard], part_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges [begin, end) of shards of about `part_bytes` of text, whatever the workers."""
    begin, size = 0, 0
    for number, shard in enumerate(shards):
        size += int(shard.annotated.statistics["bytes"])
        if size >= part_bytes or number == len(shards) - 1:
            yield begin, number + 1
            begin, size = number + 1, 0


def write_parts(engine: Engine, shards: Sequence[Shard], choices: Output, aside: Path) -> None:
    """Write every split's documents, in the order of the shards, into the folder of a corpus."""
    starts = np.cumsum([0, *(shard.documents for shard in shards)]).tolist()
    pieces = [
        Piece(
            f"{split}-{number:05d}",
            {"split": split, "starts": starts[begin : end + 1]},
            (choices, *(o for s in shards[begin:end] for o in (s.annotated, s.judged))),
            bytes=sum(int(s.annotated.statistics["bytes"]) for s in shards[begin:end]),
        )
        for split in range(len(SPLITS))
        for number, (begin, end) in enumerate(cut_into_parts(shards, PART_BYTES))
    ]
    parts = engine.map("write", write_part, pieces)
    counts = [0] * len(SPLITS)
    for piece, part in zip(pieces, parts, strict=True):
        split = piece.value["split"]
        if part.statistics["documents"] or counts[split] == 0:
            path = aside / SPLITS[split] / _DOCUMENTS
            link_file(part.directory / _DOCUMENTS, part_path(path, counts[split]))
            counts[split] += 1


def write_part(work: Work) -> dict[str, Any]:
    """The task: a split's share of some shards, in row groups of about 8 MB of text."""
    split, starts = work.value["split"], work.value["starts"]
    documents = 0
    with pq.ParquetWriter(
        work.out / _DOCUMENTS,
        _SCHEMA,
        compression="zstd",
        compression_level=3,
        write_page_checksum=True,
    ) as file:
        for table in _row_groups(_kept(work, split, starts)):
            documents += len(table)
            file.write_table(table)
    return {"documents": documents}


def _kept(work: Work, split: int, starts: Sequence[int]) -> Iterator[pa.Table]:
    """The rows of a split as the corpus holds them, one table for each row group of the shards."""
    for number, (begin, end) in enumerate(pairwise(starts)):
        annotated, judged = work.inputs[1 + 2 * number : 3 + 2 * number]
        mine = pa.array(choices_of(work.inputs[0], begin, end) == split)
        decisions = read_judged(judged, ["text", "meta"])
        row = 0
        for table in read_tables(annotated, [*_COLUMNS, "identified"]):
            here = mine.slice(row, len(table))
            decided = decisions.slice(row, len(table)).filter(here)
            row += len(table)
            yield _final(table.filter(here), decided)


def _final(table: pa.Table, decided: pa.Table) -> pa.Table:
    said = table["language"]
    unsaid = pc.equal(said, UNKNOWN)
    columns = {name: table[name] for name in _COLUMNS}
    columns["text"] = pc.coalesce(decided["text"], table["text"])
    columns["language"] = pc.if_else(unsaid, table["identified"], said)
    added = decided["meta"].to_pylist()
    if any(added):
        old = table["meta"].to_pylist()
        merged = [
            meta_json(json.loads(a) | json.loads(b)) if b else a
            for a, b in zip(old, added, strict=True)
        ]
        columns["meta"] = pa.array(merged, pa.string())
    return pa.table(columns, schema=_SCHEMA)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that end with the row that brings them to a row group's bytes."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        sizes = np.cumsum(pc.binary_length(table["text"]).to_numpy())
        begin = 0
        while begin < len(table):
            before = int(sizes[begin - 1]) if begin else 0
            end = int(np.searchsorted(sizes, before + ROW_GROUP_BYTES - size)) + 1
            waiting.append(table.slice(begin, end - begin))
            if end > len(table):
                size += int(sizes[-1]) - before
                break
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, size, begin = [], 0, end
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
