"""Annotated documents on disk: a folder of one Parquet file and a list of what was skipped.

Not for measuring them (`annotate`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isoflop.core.errors import ArtifactError
from isoflop.data.documents import Document, Skipped
from isoflop.data.language import UNKNOWN
from isoflop.data.model_filters import MODEL_SIGNALS
from isoflop.data.signals import SIGNALS

ALL_SIGNALS = (*SIGNALS, "language_score", "toxic_matches", "pii", *MODEL_SIGNALS)
TEXTS = ("id", "text", "source", "url", "language", "identified", "meta")
DOCUMENTS, SKIPPED = "documents.parquet", "skipped.jsonl"
ROW_GROUP_BYTES = 8_000_000
"""One row group holds about this much text, which bounds the memory of writers and readers."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """A document in the recipe's spelling, with what was measured on it."""

    document: Document
    """As it was read, but for `text`, in the recipe's spelling ("" if nothing is left)."""
    raw_bytes: int
    """UTF-8 bytes as read."""
    identified: str = UNKNOWN
    """The language found in the text; `und` where nobody looked."""
    signals: dict[str, float] = field(default_factory=dict)
    """Name → value; without the quality signals for code and where no rule asks."""

    @property
    def language(self) -> str:
        """What the source said or, if it did not, what was found."""
        said = self.document.language
        return self.identified if said == UNKNOWN else said


class AnnotatedWriter:
    """Appends documents and notes of skipped ones to a folder, a row group at a time.

    Signals that no document has are left out of the file.

    Args:
        signals: The signals that documents may have.
    """

    def __init__(self, folder: Path, signals: Sequence[str]) -> None:
        self._signals = tuple(name for name in ALL_SIGNALS if name in signals)
        schema = pa.schema(
            [
                *((name, pa.string()) for name in TEXTS),
                ("raw_bytes", pa.int64()),
                *((name, pa.float64()) for name in self._signals),
            ]
        )
        self._file = pq.ParquetWriter(
            folder / DOCUMENTS,
            schema,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
        )
        self._skipped = open(folder / SKIPPED, "w", encoding="utf-8")  # noqa: SIM115
        self._rows: list[Annotated] = []
        self._waiting = 0
        self.documents, self.skipped, self.bytes = 0, 0, 0
        """What was written so far; bytes of text as it is spelled."""

    def __enter__(self) -> AnnotatedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._skipped.close()
            self._file.close()

    def add(self, item: Annotated) -> None:
        """Append a document."""
        self._rows.append(item)
        size = len(item.document.text.encode())
        self.documents += 1
        self.bytes += size
        self._waiting += size
        if self._waiting >= ROW_GROUP_BYTES:
            self._flush()

    def skip(self, item: Skipped) -> None:
        """Note something that was skipped."""
        self._skipped.write(json.dumps(asdict(item)) + "\n")
        self.skipped += 1

    def _flush(self) -> None:
        rows = self._rows
        if not rows:
            return
        documents = [row.document for row in rows]
        arrays = {name: strings(getattr(d, name) for d in documents) for name in TEXTS[:5]}
        arrays["identified"] = strings(row.identified for row in rows)
        arrays["meta"] = strings(meta_json(document.meta) for document in documents)
        arrays["raw_bytes"] = pa.array([row.raw_bytes for row in rows], pa.int64())
        for name in self._signals:
            values = [row.signals.get(name, math.nan) for row in rows]
            arrays[name] = pa.array(values, pa.float64())
        self._file.write_table(pa.table(arrays))
        self._rows, self._waiting = [], 0


def meta_json(meta: dict[str, Any]) -> str:
    """A document's `meta` as corpora hold it."""
    if not meta:
        return "{}"
    return json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str)


def strings(values: Iterator[str]) -> pa.Array:
    """A column of texts; lone surrogates, which no UTF-8 can hold, become question marks."""
    listed = list(values)
    try:
        return pa.array(listed, pa.string())
    except UnicodeEncodeError:
        mended = [value.encode("utf-8", "replace").decode() for value in listed]
        return pa.array(mended, pa.string())


def read_tables(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The documents of a folder, a row group at a time; signals it lacks are no columns.

    Raises:
        ArtifactError: The file is damaged.
    """
    path = folder / DOCUMENTS
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            there = set(file.schema_arrow.names)
            chosen = None if columns is None else [name for name in columns if name in there]
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=chosen)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(folder, error) from None


def read_skipped(folder: Path) -> Iterator[Skipped]:
    """What was skipped on the way to a folder's documents.

    Raises:
        ArtifactError: The file is damaged.
    """
    try:
        with open(folder / SKIPPED, encoding="utf-8") as file:
            for line in file:
                yield Skipped(**json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from None


def documents_of(table: pa.Table) -> Iterator[Annotated]:
    """The rows of a table as documents; without their `meta`, which no decision looks at."""
    signals = [name for name in ALL_SIGNALS if name in table.column_names]
    columns = [table[name].to_pylist() for name in (*TEXTS[:6], "raw_bytes")]
    measured = [table[name].to_pylist() for name in signals]
    for row, values in enumerate(zip(*columns, strict=True)):
        identity, text, source, url, language, identified, raw_bytes = values
        found = {
            name: column[row]
            for name, column in zip(signals, measured, strict=True)
            if not math.isnan(column[row])
        }
        document = Document(identity, text, source, language, url)
        yield Annotated(document, raw_bytes, identified, found)


def _damaged(folder: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"the annotations cannot be read: {error}",
        where=str(folder),
        fix="Run `isoflop data annotate` again",
    )
