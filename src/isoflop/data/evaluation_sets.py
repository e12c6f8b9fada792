"""Reads the items of evaluation sets, to keep them out of a corpus; not for evaluating anything."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from isoflop.core.errors import DataError
from isoflop.data.duplicates_recipe import EvaluationSet

Item = tuple[str, ...]
"""The texts that make up an item: question, answer, choices …"""

_TEXT_SUFFIXES = {".txt", ".md"}
_JSON_SUFFIXES = {".jsonl", ".json", ".ndjson"}


def read_items(task: EvaluationSet) -> list[Item]:
    """The items of an evaluation set.

    A row of JSON lines or Parquet gives the texts under `task.keys`, or all its texts however
    deep; a text file gives an item a line.

    Raises:
        DataError: The file is missing, of an unknown kind, or broken; or it holds no item.
    """
    try:
        items = [item for row in _rows(task) if (item := _texts(row, task))]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the evaluation set cannot be read: {error}",
            where=str(task.path),
            fix="JSON lines (.gz, .zst), Parquet, or text with an item a line is expected",
        ) from None
    if not items:
        keys = f" under {', '.join(task.keys)}" if task.keys else ""
        raise DataError(f"the evaluation set holds no text{keys}", where=str(task.path))
    return items


def _rows(task: EvaluationSet) -> Iterator[Any]:
    suffixes = [suffix.lower() for suffix in task.path.suffixes]
    kinds = [suffix for suffix in suffixes if suffix not in (".gz", ".zst")]
    kind = kinds[-1] if kinds else ""
    if kind == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(task.path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    elif kind in _JSON_SUFFIXES:
        with _lines(task, suffixes) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parsed(line, number)
    elif kind in _TEXT_SUFFIXES:
        with _lines(task, suffixes) as lines:
            yield from (line.strip() for line in lines)
    else:
        raise ValueError(f"its kind is not known by its name, `{task.path.name}`")


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"line {number} is not JSON ({error})") from None


@contextmanager
def _lines(task: EvaluationSet, suffixes: list[str]) -> Iterator[IO[str]]:
    if suffixes[-1] == ".zst":
        import zstandard

        try:
            with (
                open(task.path, "rb") as raw,
                zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as plain,
            ):
                yield io.TextIOWrapper(plain, encoding="utf-8")
        except zstandard.ZstdError as error:
            raise ValueError(error) from None
    elif suffixes[-1] == ".gz":
        with gzip.open(task.path, "rt", encoding="utf-8") as file:
            yield file
    else:
        with open(task.path, encoding="utf-8") as file:
            yield file


def _texts(row: Any, task: EvaluationSet) -> Item:
    if task.keys and isinstance(row, dict):
        return tuple(text for key in task.keys for text in _strings(row.get(key)))
    return tuple(_strings(row))


def _strings(value: Any) -> Iterator[str]:
    """The texts in a value of JSON, depth first."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            if part.strip():
                yield part
        elif isinstance(part, dict):
            waiting.extend(reversed(part.values()))
        elif isinstance(part, list | tuple):
            waiting.extend(reversed(part))
