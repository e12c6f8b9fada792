"""Reads files of instruction rows and of questions with answers, line by line; not their checks."""

from __future__ import annotations

import gzip
import io
import json
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from isoflop.core.errors import DataError, RecipeError
from isoflop.data.instruct_recipe import InstructSource
from isoflop.data.instruct_rows import BadRow


@dataclass(frozen=True)
class Place:
    """Where a row comes from."""

    source: str
    file: str
    line: int
    """Counted from 1; rows of Parquet and generated problems count as lines."""


def read_rows(source: InstructSource) -> Iterator[tuple[int, Any]]:
    """(line, value) of each row of a JSON-lines (.gz, .zst) or Parquet file; a value that is a
    `BadRow` could not be read.

    Raises:
        DataError: The file is missing or broken as a whole.
    """
    path = _path(source)
    try:
        if path.suffix == ".parquet":
            yield from enumerate(_parquet(path), 1)
            return
        with _lines(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"cannot be read: {error}",
            where=str(path),
            fix="JSON lines (.gz, .zst) or Parquet is expected",
        ) from None


def mined(source: InstructSource, row: Any) -> dict[str, Any]:
    """A row of questions and answers as a prompt, a completion and an answer to check.

    Raises:
        BadRow: A column is missing or empty.
    """
    if not isinstance(row, dict):
        raise BadRow("not an object")
    named = {"question": source.question, "answer": source.answer}
    if source.steps is not None:
        named["steps"] = source.steps
    values = {key: str(value) for key, value in row.items() if value is not None}
    for role, column in named.items():
        if not values.get(column, "").strip():
            raise BadRow(f"missing {role}")
        values[role] = values[column].strip()
    try:
        prompt = source.prompt_template.format_map(values)
        completion = source.completion_template.format_map(values)
    except KeyError as error:
        raise BadRow(f"missing column {error.args[0]}") from None
    made: dict[str, Any] = {"prompt": prompt, "completion": completion, "answer": values["answer"]}
    if source.family is not None:
        if not values.get(source.family, "").strip():
            raise BadRow("missing family")
        made["family"] = values[source.family]
    return made


def check_templates(source: InstructSource) -> None:
    """Check that a source's templates can be filled.

    Raises:
        RecipeError: A brace is not closed, or a field is no plain name.
    """
    for template in (source.prompt_template, source.completion_template):
        try:
            names = [
                name for _, name, _, _ in string.Formatter().parse(template) if name is not None
            ]
        except ValueError as error:
            raise RecipeError(f"template {template!r}: {error}", where=source.label) from None
        for name in names:
            if not name.isidentifier():
                raise RecipeError(
                    f"template {template!r}: {{{name}}} is no column's name",
                    where=source.label,
                    fix="Write {column}, and {{ for a brace",
                )


def _path(source: InstructSource) -> Path:
    if source.path is None:
        raise RecipeError(f"source {source.label} has no path")
    return source.path


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return BadRow("not JSON")


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(error) from None


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    # A byte that is not UTF-8 spoils its own line, not the file.
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            yield file
    elif path.suffix == ".zst":
        import zstandard

        try:
            with (
                open(path, "rb") as raw,
                zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as plain,
            ):
                yield io.TextIOWrapper(plain, encoding="utf-8", errors="replace")
        except zstandard.ZstdError as error:
            raise ValueError(error) from None
    else:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield file
