"""The stage that decides on annotated documents, and hashes what is kept for finding copies.

Not for the decisions themselves (`decide`) nor for the copies (`copies`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.engine.records import KEY, write_records
from isoflop.core.errors import ArtifactError
from isoflop.core.recipe import from_dict, to_dict
from isoflop.data.annotated import Annotated, documents_of, read_tables
from isoflop.data.clean_recipe import CleanConfig
from isoflop.data.decide import Decider, Decision
from isoflop.data.model_filters import fingerprints

JUDGED, TEXT_RECORDS, LINE_RECORDS = "judged.parquet", "texts.npy", "lines.npy"
TEXT_RECORD = np.dtype([(KEY, "<u8"), ("check", "<u8"), ("document", "<u8")])
LINE_RECORD = np.dtype([(KEY, "<u8"), ("document", "<u8")])
_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),  # why it is dropped; "" if it may stay
        ("text", pa.string()),  # its final text where that differs from the annotated one
        ("bytes", pa.int64()),  # of its final text
        ("draw", pa.uint64()),  # decides the split
        ("lines", pa.int32()),  # telling lines, for `copies`
        ("pii", pa.string()),  # JSON, kind → number found; "" for none
        ("meta", pa.string()),  # JSON, what is to be added to its meta; "" for nothing
    ]
)
# A line shorter than this (`return None`, `\"\"\"`) says nothing about copying.
_MIN_LINE_CHARACTERS = 12
MIN_LINES = 5
"""Below this many telling lines the share of copied ones is noise; exact matching still applies."""

_NO_KEYS = np.empty(0, np.uint64)

# A document's number: its source, the piece of the source, its row there.
_PIECE_BITS, _ROW_BITS = 26, 26


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
        shards = np.searchsorted(self._numbers, documents >> np.uint64(_ROW_BITS))
        rows = documents & np.uint64((1 << _ROW_BITS) - 1)
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
    """The task: a decision for each document, and records of the texts and lines that may stay."""
    decide = Decider(from_dict(CleanConfig, work.parameters["clean"], "clean"))
    first, seed = work.value << _ROW_BITS, work.parameters["seed"]
    texts, lines = [np.empty(0, TEXT_RECORD)], [np.empty(0, LINE_RECORD)]
    row, kept = 0, 0
    with pq.ParquetWriter(work.out / JUDGED, _SCHEMA, compression="zstd") as file:
        for table in read_tables(work.inputs[0]):
            rows, text_keys, keys_of_lines = [], [], []
            for item in documents_of(table):
                work.place = f"source `{item.document.source}`, document {item.document.id}"
                decision = decide(item)
                size, keys = len(decision.text.encode()), _NO_KEYS
                if decision.reason is None:
                    kept += size
                    text_keys.append((*_text_keys(decision.text), first + row))
                    keys = line_keys(decision.text)
                keys_of_lines.append(keys)
                rows.append(_row(item, decision, size, keys.size, seed))
                row += 1
            file.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
            texts.append(np.array(text_keys, TEXT_RECORD))
            lines.append(_line_records(keys_of_lines, first + row - len(rows)))
    write_records(work.out / TEXT_RECORDS, np.concatenate(texts))
    write_records(work.out / LINE_RECORDS, np.concatenate(lines))
    return {"bytes": kept}


def _line_records(keys: list[NDArray[np.uint64]], first: int) -> NDArray[np.void]:
    """Records of the lines of documents that are numbered from `first` on."""
    sizes = [each.size for each in keys]
    records: NDArray[np.void] = np.empty(sum(sizes), LINE_RECORD)
    records[KEY] = np.concatenate(keys)
    records["document"] = np.repeat(first + np.arange(len(keys)), sizes)
    return records


def _row(item: Annotated, decision: Decision, size: int, telling: int, seed: int) -> dict[str, Any]:
    changed = decision.text != item.document.text
    return {
        "reason": decision.reason or "",
        "text": decision.text if changed else None,
        "bytes": size,
        "draw": split_draw(decision.text, seed),
        "lines": telling,
        "pii": json.dumps(decision.pii) if decision.pii else "",
        "meta": json.dumps(decision.meta, ensure_ascii=False) if decision.meta else "",
    }


def split_draw(text: str, seed: int) -> int:
    """A number below 2^64 that decides the split of a text; never of its order."""
    digest = hashlib.sha256(f"held-out\0{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _text_keys(text: str) -> tuple[int, int]:
    """128 bits of a text's hash, in two halves."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def line_keys(text: str) -> NDArray[np.uint64]:
    """Hashes of the distinct telling lines of a text, whatever their indentation; or of none."""
    stripped = {line.strip() for line in text.split("\n")}
    telling = [line for line in stripped if len(line) >= _MIN_LINE_CHARACTERS]
    if len(telling) < MIN_LINES:
        return _NO_KEYS
    digests = [hashlib.blake2b(line.encode(), digest_size=8).digest() for line in telling]
    return np.unique(np.frombuffer(b"".join(digests), "<u8"))


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
