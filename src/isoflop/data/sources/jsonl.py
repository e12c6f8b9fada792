"""Reads JSON lines, plain or compressed: one document a line. Not for other kinds of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.encodings import decode
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import cut, find_files, open_file, read_errors, unreadable, whole
from isoflop.data.sources.rows import document_from_row, without_surrogates
from isoflop.data.sources.streams import DamagedStream, Line, decompressed, lines, lines_between

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst")
_COMPRESSED = (".gz", ".bz2", ".zst")
_BOM = b"\xef\xbb\xbf"
_MAX_DEPTH = 100
_SURROGATE = re.compile(rb"\\u[dD][89abAB]")


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """Plain files cut by bytes, compressed ones whole."""
    files = find_files(source, ENDINGS)
    packed = [file for file in files if file.location.endswith(_COMPRESSED)]
    plain = [file for file in files if not file.location.endswith(_COMPRESSED)]
    return [*cut(plain, seed), *whole(packed, seed)]


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The documents of the lines that begin in a split."""
    number: int | None = 0 if split.start == 0 else None
    end = split.start
    try:
        with open_file(split.location) as file:
            if split.location.endswith(_COMPRESSED):
                content = decompressed(file, split.location)
                found = lines(content, source.max_document_bytes)
            else:
                found = lines_between(file, split.start, split.stop, source.max_document_bytes)
            for line in found:
                end = line.offset + line.size + 1
                number = None if number is None else number + 1
                item = _from_line(source, split.identity, number, line)
                if item is not None:
                    yield item
    except read_errors(DamagedStream) as error:
        # What was read before stays, the rest is accounted for.
        following = None if number is None else number + 1
        yield unreadable(split.identity, error, following, end)


class _Broken(Exception):
    """A line that gives no document: why, and the details."""


def _from_line(
    source: SourceConfig, identity: str, number: int | None, line: Line
) -> Document | Skipped | None:
    try:
        if line.raw is None:
            limit = f"{source.max_document_bytes / 1e6:g} MB"
            raise _Broken(f"line over {limit}", "")
        raw = line.raw.removeprefix(_BOM) if line.offset == 0 else line.raw
        if not raw.strip():
            return None
        row = _parse(raw)
        if _SURROGATE.search(raw):
            row = without_surrogates(row, source.text_key)
        text = row.pop(source.text_key, None)
        if not isinstance(text, str):
            keys = ", ".join(row) or "none"
            raise _Broken(f"no text under `{source.text_key}`", f"keys: {keys}")
    except _Broken as problem:
        reason, detail = problem.args
        return Skipped(identity, reason, line.size, number, True, detail, line.offset)
    return document_from_row(source, f"{identity}@{line.offset}", text, row, line.offset)


def _parse(raw: bytes) -> dict[str, Any]:
    """The JSON object that a line holds; NaN and infinities, which JSON lacks, become null."""
    content: str | None
    try:
        content = raw.decode()
    except UnicodeDecodeError as error:
        found = decode(raw)
        if found is None:
            raise _Broken("unknown encoding", str(error)) from None
        content = found.text
    if raw.count(b"[") + raw.count(b"{") > _MAX_DEPTH and _depth(content) > _MAX_DEPTH:
        raise _Broken("broken JSON line", f"nested more than {_MAX_DEPTH} deep")
    try:
        row = json.loads(content, object_pairs_hook=_unique, parse_constant=_null)
    except json.JSONDecodeError as error:
        raise _Broken("broken JSON line", f"{error.msg} (column {error.colno})") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise _Broken("broken JSON line", str(error)) from None
    if not isinstance(row, dict):
        raise _Broken("not a JSON object", f"it is a {type(row).__name__}")
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Broken("broken JSON line", f"the key `{twice}` is there twice")
    return row


def _null(_: str) -> None:
    return None


def _depth(content: str) -> int:
    """How deep brackets are nested outside strings."""
    depth = deepest = 0
    for mark in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', content):
        if (piece := mark.group()) in ("[", "{"):
            depth += 1
            deepest = max(deepest, depth)
        elif piece in ("]", "}"):
            depth -= 1
    return deepest
