"""Reads documents from text files, JSONL, Parquet, the Python installation and the generator.

Not for cleaning them: what is broken is reported as `Skipped`, what is readable goes on as it is.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from isoflop.core.errors import DataError
from isoflop.data.documents import Document, Skipped, order_key
from isoflop.data.python_installation import read_installation
from isoflop.data.recipe import SourceConfig
from isoflop.data.word_problems import generate

_ENDINGS = {
    "text": (".txt", ".md", ".rst"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "parquet": (".parquet",),
}
# No generated problem is shorter, so this many always fill a cap given in bytes.
_MIN_PROBLEM_BYTES = 50
_CHUNK_BYTES = 1 << 20
_UNREADABLE = "unreadable file"


def read_source(source: SourceConfig, seed: int) -> Iterator[Document | Skipped]:
    """Documents of one source, in an order that depends on the seed and the names alone.

    Raises:
        DataError: The path holds no file of this kind.
    """
    if source.kind == "python":
        yield from read_installation(source.label, seed)
    elif source.kind == "word-problems":
        count = source.documents
        if count is None:
            # Twice as many as the shortest would need: some are drawn twice and dropped.
            count = 2 * (source.max_bytes or 0) // _MIN_PROBLEM_BYTES + 1
        yield from generate(source.label, seed, count)
    else:
        read = {"text": _read_text, "jsonl": _read_jsonl, "parquet": _read_parquet}[source.kind]
        for identity, path in _files(source, seed):
            yield from read(source, identity, path)


def expected_bytes(source: SourceConfig) -> int:
    """About how much text the source will give, for the progress line."""
    if source.max_bytes is not None:
        return source.max_bytes
    if source.kind == "word-problems":
        return 2 * _MIN_PROBLEM_BYTES * (source.documents or 0)
    if source.path is None:
        return 100_000_000
    return sum(path.stat().st_size for _, path in _files(source, 0) if path.exists())


def _files(source: SourceConfig, seed: int) -> list[tuple[str, Path]]:
    """(identity, path) of the files to read; the identity is relative to what was asked for."""
    if source.path is None:
        raise DataError("no path", where=f"source `{source.label}`", fix="Set `path`")
    root, endings = source.path, _ENDINGS[source.kind]
    if root.is_file():
        return [(root.name, root)]
    if root.is_dir():
        found = [p for p in root.rglob("*") if p.name.endswith(endings) and not p.is_dir()]
        files = [(p.relative_to(root).as_posix(), p) for p in found]
    else:
        found = [Path(name) for name in glob(str(root), recursive=True)]
        fixed = _fixed_part(root)
        files = [(p.relative_to(fixed).as_posix(), p) for p in found if not p.is_dir()]
    if not files:
        raise DataError(
            f"no {source.kind} file ({', '.join('*' + e for e in endings)}) is there",
            where=f"source `{source.label}` ({root})",
            fix="Correct `path` in the recipe; it is relative to the recipe's folder",
        )
    return sorted(files, key=lambda file: order_key(seed, file[0]))


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first part of a glob that holds a wildcard."""
    parts = pattern.parts
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    return Path(*parts[: min(fixed, len(parts) - 1)])


def _read_text(source: SourceConfig, identity: str, path: Path) -> Iterator[Document | Skipped]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        yield _unreadable(identity, error)
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        yield Skipped(identity, "not UTF-8", len(raw), line, broken=True, detail=str(error))
        return
    yield Document(identity, text, source.label, source.language)


def _read_jsonl(source: SourceConfig, identity: str, path: Path) -> Iterator[Document | Skipped]:
    number = 0
    try:
        for number, raw in enumerate(_lines(path), 1):
            if raw.strip():
                yield _from_line(source, identity, number, raw)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        # A cut-off archive: what was read before stays, the rest is accounted for.
        yield _unreadable(identity, error, number + 1)


def _lines(path: Path) -> Iterator[bytes]:
    if path.name.endswith(".zst"):
        yield from _zstd_lines(path)
    elif path.name.endswith(".gz"):
        with gzip.open(path, "rb") as archive:
            yield from archive
    else:
        with open(path, "rb") as file:
            yield from file


def _zstd_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file of one or more Zstandard frames; EOFError when the last one is cut off.

    The library's own stream reader ends quietly there, which would lose lines unnoticed.
    """
    decompressor = zstandard.ZstdDecompressor()
    frame, rest = decompressor.decompressobj(), b""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            while chunk:
                if frame.eof:
                    frame = decompressor.decompressobj()
                rest += frame.decompress(chunk)
                chunk = frame.unused_data if frame.eof else b""
            *whole, rest = rest.split(b"\n")
            yield from whole
    if rest:
        yield rest
    if not frame.eof:
        raise EOFError("the Zstandard stream ends in the middle of a frame")


def _from_line(source: SourceConfig, identity: str, number: int, raw: bytes) -> Document | Skipped:
    def broken(reason: str, detail: str) -> Skipped:
        return Skipped(identity, reason, len(raw), number, broken=True, detail=detail)

    try:
        row = json.loads(raw.rstrip(b"\r\n"))
    except json.JSONDecodeError as error:
        return broken("broken JSON line", f"{error.msg} (column {error.colno})")
    except UnicodeDecodeError as error:
        return broken("not UTF-8", str(error))
    except RecursionError:
        return broken("broken JSON line", "nested too deeply")
    if not isinstance(row, dict):
        return broken("not a JSON object", f"it is a {type(row).__name__}")
    text = row.pop(source.text_key, None)
    if not isinstance(text, str):
        return broken(f"no text under `{source.text_key}`", f"keys: {', '.join(row) or 'none'}")
    return _from_row(source, f"{identity}:{number}", text, row)


def _from_row(source: SourceConfig, identity: str, text: str, row: dict[str, Any]) -> Document:
    """A document from a row whose known keys become fields and whose others become `meta`."""
    own = {key: row.pop(key, None) for key in ("id", "url", "language")}
    return Document(
        id=str(own["id"]) if own["id"] is not None else identity,
        text=text,
        source=source.label,
        language=str(own["language"] or source.language),
        url=str(own["url"] or ""),
        meta=row,
    )


def _read_parquet(source: SourceConfig, identity: str, path: Path) -> Iterator[Document | Skipped]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if source.text_key not in names:
                yield Skipped(
                    identity, f"no text under `{source.text_key}`", path.stat().st_size,
                    broken=True, detail=f"columns: {', '.join(names)}",
                )  # fmt: skip
                return
            columns = [n for n in (source.text_key, "id", "url", "language") if n in names]
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    text = row.pop(source.text_key)
                    if isinstance(text, str):
                        yield _from_row(source, f"{identity}:{number}", text, row)
                    else:
                        reason = f"no text under `{source.text_key}`"
                        yield Skipped(identity, reason, line=number, broken=True)
    except (OSError, pa.ArrowException) as error:
        yield _unreadable(identity, error, number + 1)


def _unreadable(identity: str, error: Exception, line: int | None = None) -> Skipped:
    # strerror leaves out the path, which is this machine's.
    detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Skipped(identity, _UNREADABLE, line=line, broken=True, detail=detail)
