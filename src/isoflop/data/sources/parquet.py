"""Reads documents from the rows of Parquet files; not for writing them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import (
    SPLIT_BYTES,
    SourceFile,
    find_files,
    in_order,
    open_file,
    read_errors,
    unreadable,
    whole,
)
from isoflop.data.sources.rows import document_from_row

ENDINGS = (".parquet",)
_BATCH_ROWS = 1024
_BATCH_BYTES = 64 << 20
_MAX_BATCH_BYTES = 256 << 20


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """Files over `SPLIT_BYTES` cut between row groups, the others whole."""
    files = find_files(source, ENDINGS)
    large = [file for file in files if file.bytes > SPLIT_BYTES]
    splits = whole([file for file in files if file.bytes <= SPLIT_BYTES], seed)
    return in_order([*splits, *(split for file in large for split in _cut(file, seed))], seed)


def _cut(file: SourceFile, seed: int) -> list[InputSplit]:
    try:
        with open_file(file.location) as opened, pq.ParquetFile(opened) as parquet:
            metadata = parquet.metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    except read_errors(pa.ArrowException):
        return whole([file], seed)  # reading it will say what is wrong
    total = sum(size for _, size in sizes)
    splits: list[InputSplit] = []
    start = row = held = 0
    for index, (rows, size) in enumerate(sizes):
        row, held = row + rows, held + size
        share = held * file.bytes // max(1, total)
        if share >= SPLIT_BYTES or index == len(sizes) - 1:
            splits.append(
                InputSplit(file.identity, file.location, share, start, row, file.stamp, seed)
            )
            start, held = row, 0
    return splits


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The documents of the rows [start, stop) of a file, which are whole row groups."""
    number, key = split.start, source.text_key
    missing = f"no text under `{key}`"
    try:
        with open_file(split.location) as opened, pq.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            if key not in names:
                detail = f"columns: {', '.join(names)}"
                yield Skipped(split.identity, missing, split.bytes, None, True, detail)
                return
            wanted = (key, "id", "url", "language", "license")
            columns = [name for name in wanted if name in names]
            groups = _groups(file, split)
            rows = _rows_at_once(file, groups, key)
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=columns):
                texts = batch.column(key)
                others = batch.drop_columns([key]).to_pylist() if len(columns) > 1 else None
                for index in range(batch.num_rows):
                    number += 1
                    row = others[index] if others else {}
                    yield _from_value(source, split.identity, number, texts[index], row)
    except read_errors(pa.ArrowException) as error:
        yield unreadable(split.identity, error, number + 1)


def _from_value(
    source: SourceConfig, identity: str, number: int, value: pa.Scalar, row: dict[str, object]
) -> Document | Skipped:
    size = 0
    if value.is_valid and pa.types.is_large_string(value.type) | pa.types.is_string(value.type):
        size = value.as_buffer().size
        if size > source.max_document_bytes:
            limit = f"text over {source.max_document_bytes / 1e6:g} MB"
            return Skipped(identity, limit, size, number, True)
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        return Skipped(identity, "not UTF-8", size, number, True, str(error))
    if not isinstance(text, str):
        return Skipped(identity, f"no text under `{source.text_key}`", line=number, broken=True)
    row = {key: value for key, value in row.items() if value is not None}
    return document_from_row(source, f"{identity}:{number}", text, row, number)


def _groups(file: pq.ParquetFile, split: InputSplit) -> list[int]:
    """The row groups that begin in the split."""
    groups, row = [], 0
    for index in range(file.num_row_groups):
        if split.start <= row and (split.stop is None or row < split.stop):
            groups.append(index)
        row += file.metadata.row_group(index).num_rows
    return groups


def _rows_at_once(file: pq.ParquetFile, groups: list[int], key: str) -> int:
    """So many rows that their text takes some 64 MB in the group where texts are longest."""
    rows = _BATCH_ROWS
    for index in groups:
        group = file.metadata.row_group(index)
        columns = [group.column(number) for number in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == key)
        mean = size / max(1, group.num_rows)
        # A value that is stored once may stand in every row.
        bound = min(_BATCH_BYTES / max(1.0, mean), _MAX_BATCH_BYTES / max(1, size))
        rows = min(rows, max(1, int(bound)))
    return rows
