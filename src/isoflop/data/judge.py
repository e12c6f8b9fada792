"""The stage that decides on annotated documents, and the form in which decisions are kept.

Not for the decisions themselves (`decide`) nor for duplicates (`duplicate_stages`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work, link_file
from isoflop.core.errors import ArtifactError
from isoflop.core.recipe import from_dict, to_dict
from isoflop.data.annotated import Annotated, documents_of, read_tables
from isoflop.data.clean_recipe import CleanConfig
from isoflop.data.decide import Decider, Decision
from isoflop.data.model_filters import fingerprints

JUDGED = "judged.parquet"
_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),  # why it is dropped; "" if it may stay
        ("text", pa.string()),  # its final text where that differs from the annotated one
        ("bytes", pa.int64()),  # of its final text
        ("draw", pa.uint64()),  # decides the split
        ("pii", pa.string()),  # JSON, kind → number found; "" for none
        ("meta", pa.string()),  # JSON, what is to be added to its meta; "" for nothing
    ]
)
# A document's number: its source, the piece of the source, its row there.
_PIECE_BITS, ROW_BITS = 26, 26


@dataclass(frozen=True)
class Shard:
    """The documents of one piece of a source, annotated and decided on."""

    source: int
    """The place of its source in the recipe."""
    piece: int
    annotated: Output
    judged: Output

    @property
    def documents(self) -> int:
        """How many documents it holds."""
        return int(self.annotated.statistics["documents"])

    @property
    def number(self) -> int:
        """Its place in the order of all shards; a document's number begins with it."""
        return self.source << _PIECE_BITS | self.piece


class DocumentIndex:
    """Where the documents of shards lie when all are counted through.

    Args:
        shards: (number, documents) of each, by number.
    """

    def __init__(self, shards: Sequence[tuple[int, int]]) -> None:
        self._numbers = np.array([number for number, _ in shards], dtype=np.uint64)
        counts = np.array([documents for _, documents in shards], dtype=np.int64)
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        """(shards + 1,) where each begins."""

    @property
    def total(self) -> int:
        """All documents."""
        return int(self.starts[-1])

    def positions(self, documents: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where documents lie, by their numbers."""
        shards = np.searchsorted(self._numbers, documents >> np.uint64(ROW_BITS))
        rows = documents & np.uint64((1 << ROW_BITS) - 1)
        return self.starts[shards] + rows.astype(np.int64)


def judge(
    engine: Engine, source: int, pieces: list[Output], clean: CleanConfig, seed: int
) -> list[Shard]:
    """Decide on the annotated pieces of a source."""
    shards = [
        Piece(
            f"{source:03d}-{number:06d}",
            source << _PIECE_BITS | number,
            (piece,),
            bytes=int(piece.statistics["bytes"]),
        )
        for number, piece in enumerate(pieces)
    ]
    thresholds = to_dict(clean)
    thresholds["toxicity"]["lists"] = []  # the annotations hold the matches
    models = (clean.perplexity.model, clean.classifier.model)
    for name, model in zip(("perplexity", "classifier"), models, strict=True):
        thresholds[name]["model"] = model and str(model.absolute())
    parameters = {"clean": thresholds, "seed": seed, "models": fingerprints(*models)}
    judged = engine.map("judge", judge_piece, shards, parameters)
    return [
        Shard(source, number, *outputs)
        for number, outputs in enumerate(zip(pieces, judged, strict=True))
    ]


def judge_piece(work: Work) -> dict[str, Any]:
    """The task: a decision for each document."""
    decide = Decider(from_dict(CleanConfig, work.parameters["clean"], "clean"))
    seed, kept = work.parameters["seed"], 0
    with pq.ParquetWriter(work.out / JUDGED, _SCHEMA, compression="zstd") as file:
        for table in read_tables(work.inputs[0]):
            rows = []
            for item in documents_of(table):
                work.place = f"source `{item.document.source}`, document {item.document.id}"
                decision = decide(item)
                size = len(decision.text.encode())
                kept += size if decision.reason is None else 0
                rows.append(_row(item, decision, size, seed))
            file.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
    return {"bytes": kept}


def _row(item: Annotated, decision: Decision, size: int, seed: int) -> dict[str, Any]:
    changed = decision.text != item.document.text
    return {
        "reason": decision.reason or "",
        "text": decision.text if changed else None,
        "bytes": size,
        "draw": split_draw(decision.text, seed),
        "pii": json.dumps(decision.pii) if decision.pii else "",
        "meta": json.dumps(decision.meta, ensure_ascii=False) if decision.meta else "",
    }


def split_draw(text: str, seed: int) -> int:
    """A number below 2^64 that decides the split of a text; never of its order."""
    digest = hashlib.sha256(f"held-out\0{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def rewrite(
    work: Work, judged: Path, changes: Mapping[int, str | None], reason: str, seed: int
) -> int:
    """Write a shard's decisions anew, for a task that changes some of them.

    Args:
        changes: Row → the document's new text; None: it is dropped for `reason`.

    Returns:
        Bytes of the documents that may stay.
    """
    if not changes:
        link_file(judged / JUDGED, work.out / JUDGED)
    else:
        columns = {name: column.to_pylist() for name, column in _columns(judged)}
        for row, text in changes.items():
            if text is None:
                columns["reason"][row] = reason
            else:
                columns["text"][row], columns["bytes"][row] = text, len(text.encode())
                columns["draw"][row] = split_draw(text, seed)
        pq.write_table(pa.table(columns, schema=_SCHEMA), work.out / JUDGED, compression="zstd")
    table = read_judged(work.out, ["reason", "bytes"])
    return int(pc.sum(table.filter(pc.equal(table["reason"], ""))["bytes"]).as_py() or 0)


def _columns(judged: Path) -> Iterator[tuple[str, pa.ChunkedArray]]:
    table = read_judged(judged, _SCHEMA.names)
    return zip(table.column_names, table.columns, strict=True)


def final_tables(
    annotated: Path, judged: Path, columns: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
    """The documents of a shard that may stay, a row group at a time, with their final text.

    Returns:
        Their rows in the shard, and their `text` and other columns.
    """
    decided = read_judged(judged, ["reason", "text"])
    row = 0
    for table in read_tables(annotated, ["text", *columns]):
        mine = decided.slice(row, len(table))
        here = pc.equal(mine["reason"], "")
        rows = np.flatnonzero(here.to_numpy()) + row
        row += len(table)
        text = pc.coalesce(mine["text"], table["text"])
        final = table.set_column(table.column_names.index("text"), "text", text)
        yield rows, final.filter(here)


def read_judged(folder: Path, columns: list[str]) -> pa.Table:
    """Columns of the decisions on a shard.

    Raises:
        ArtifactError: The file is damaged.
    """
    try:
        return pq.read_table(folder / JUDGED, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"the decisions cannot be read: {error}",
            where=str(folder / JUDGED),
            fix="Remove this folder, then run the same command again",
        ) from None
