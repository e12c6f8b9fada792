"""Reads texts of two kinds for the quality classifier; not for training it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isoflop.core.artifact import MANIFEST
from isoflop.core.errors import DataError
from isoflop.data.corpus import inspect
from isoflop.data.documents import Document, order_key
from isoflop.data.recipe import SourceConfig, SourceKind
from isoflop.data.sources import read_source

_KINDS: tuple[tuple[SourceKind, tuple[str, ...]], ...] = (
    ("jsonl", (".jsonl", ".jsonl.gz", ".jsonl.zst")),
    ("parquet", (".parquet",)),
    ("text", (".txt", ".md", ".rst")),
)


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its kind."""

    text: str
    positive: bool

    def held_out(self, seed: int, share: float) -> bool:
        """Whether it is not to be trained on: a function of the text alone."""
        draw = int.from_bytes(order_key(seed, self.text)[:8], "big")
        return draw < share * 2.0**64


def read_both(positive: Path, negative: Path, text_key: str = "text") -> list[Example]:
    """Examples of which one path holds the positive and another the negative ones.

    Args:
        positive: A corpus, or JSONL, Parquet or text files: a file, folder or glob.
        text_key: Key or column that holds the text.

    Raises:
        DataError: A path holds no such file or no text.
    """
    return [
        Example(text, kind)
        for path, kind in ((positive, True), (negative, False))
        for text in read_text(path, text_key)
    ]


def read_labels(path: Path, label: str, positive: str, text_key: str = "text") -> list[Example]:
    """Examples whose kind stands in a column of theirs; rows without it are left out.

    Args:
        path: As for `read_both`.
        label: The column, or the key of a JSONL row or of a corpus document's `meta`.
        positive: What it says of positive texts; they are those at this number or above where
            both are numbers. `true` counts 1 and `false` 0.

    Raises:
        DataError: The path holds no such file or no row has the column.
    """
    examples = [
        Example(text, _is_positive(value, positive))
        for text, value in _rows(path, text_key, label)
        if value is not None
    ]
    if not examples:
        raise DataError(f"no document has a text and a `{label}`", where=str(path))
    return examples


def read_text(path: Path, text_key: str = "text") -> list[str]:
    """The texts of a corpus, or of JSONL, Parquet or text files.

    Raises:
        DataError: The path holds no such file or no text.
    """
    texts = [text for text, _ in _rows(path, text_key, None) if text.strip()]
    if not texts:
        raise DataError(f"there is no text under `{text_key}`", where=str(path))
    return texts


def _rows(path: Path, text_key: str, label: str | None) -> Iterator[tuple[str, Any]]:
    """Texts and their labels, None where they have none."""
    if (path / MANIFEST).exists():
        corpus = inspect(path)
        columns = ["text", "meta"] if label else ["text"]
        for split in corpus.funnel["splits"]:
            for table in corpus.row_groups(split, columns):
                for row in table.to_pylist():
                    yield row["text"], json.loads(row["meta"]).get(label) if label else None
        return
    kind = _kind(path)
    if kind == "parquet" and label:
        yield from _parquet_rows(path, text_key, label)
        return
    for item in read_source(SourceConfig(kind, path=path, text_key=text_key), 0):
        if isinstance(item, Document):
            yield item.text, item.meta.get(label) if label else None


def _kind(path: Path) -> SourceKind:
    names = [path.name]
    if path.is_dir():
        names = [found.name for found in path.rglob("*") if found.is_file()]
    for kind, endings in _KINDS:
        if any(name.endswith(endings) for name in names):
            return kind
    raise DataError(
        "no corpus, JSONL, Parquet or text file is there", where=str(path), fix="Check the path"
    )


def _parquet_rows(path: Path, text_key: str, label: str) -> Iterator[tuple[str, Any]]:
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        try:
            table = pq.ParquetFile(file)
            for batch in table.iter_batches(batch_size=1024, columns=[text_key, label]):
                for row in batch.to_pylist():
                    if isinstance(row.get(text_key), str):
                        yield row[text_key], row.get(label)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot be read: {error}", where=str(file)) from None


def _is_positive(value: object, positive: str) -> bool:
    number = float(value) if isinstance(value, bool | int | float) else None
    if number is None:
        return str(value) == positive
    try:
        return number >= float(positive)
    except ValueError:
        return False
