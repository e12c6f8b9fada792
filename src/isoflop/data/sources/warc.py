"""Reads crawls: WARC files with pages, WET files with their text. Not for writing them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.encodings import decode
from isoflop.data.extras import require
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import find_files, open_file, read_errors, unreadable, whole
from isoflop.data.sources.streams import CHUNK_BYTES
from isoflop.data.sources.text import source_meta, unknown_encoding
from isoflop.data.sources.web_pages import extractor_for, page_document

ENDINGS = tuple(
    f".warc{kind}{packed}" for kind in ("", ".wet") for packed in ("", ".gz", ".zst")
)  # fmt: skip
_HTML = ("text/html", "application/xhtml")
_TEXT = ("text/plain",)
_HTTP_ENCODINGS = ("Content", "Transfer")
_RECORD = re.compile(rb"WARC/1\.\d\r\nWARC-[\w-]+:")
# The first bytes of gzip members and Zstandard frames.
_PACKED = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")
_MAX_RESTARTS = 1_000


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """One split a file: a crawl has tens of thousands."""
    _fastwarc()
    extractor_for(source)
    return whole(find_files(source, ENDINGS), seed)


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The pages of a file in order; `meta.offset` is where the record starts in the stored file.

    After damage, reading goes on at the next place that looks like the start of a record.
    """
    warc, identity = _fastwarc(), split.identity
    start: int | None = 0
    restarts = 0
    try:
        with open_file(split.location) as file:
            while start is not None:
                file.seek(start)
                found, offset = 0, start
                try:
                    for record in warc.ArchiveIterator(file, parse_http=False, fsspec_args=False):
                        offset = record.stream_pos  # in the file, wherever we started
                        found += 1
                        item = _read_record(source, identity, offset, warc, record)
                        if item is not None:
                            yield item
                    break
                except (OSError, ValueError, EOFError) as error:
                    # What fails again at once is the same damage.
                    if found or restarts == 0:
                        yield unreadable(identity, error, offset=offset)
                restarts += 1
                start = _next_start(file, offset + 1) if restarts < _MAX_RESTARTS else None
    except read_errors() as error:
        yield unreadable(identity, error)


class _WrongLength(ValueError):
    """A record that is longer or shorter than its header says."""


def _read_record(
    source: SourceConfig, identity: str, offset: int, warc: Any, record: Any
) -> Document | Skipped | None:
    """The document of a record; None for a record that never holds a page."""
    if record.record_type not in (warc.response, warc.resource, warc.conversion):
        return None
    name, size, limit = f"{identity}@{offset}", record.content_length, source.max_document_bytes
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
    content_type = (record.headers.get("Content-Type") or "").lower()
    charset, is_plain = None, True
    if record.record_type == warc.response:
        if not content_type.startswith("application/http"):
            return None  # DNS answers and the like
        try:
            record.parse_http(auto_decode="all")
        except (OSError, ValueError, EOFError) as error:
            return unreadable(identity, error, offset=offset)
        if record.http_headers.status_code != 200:
            return Skipped(identity, "page not found or moved", size, offset=offset)
        content_type = (record.http_content_type or "").lower()
        charset = record.http_charset
        encodings = (record.http_headers.get(f"{kind}-Encoding") for kind in _HTTP_ENCODINGS)
        is_plain = not any(encodings)
    if not content_type.startswith(_HTML + _TEXT):
        return Skipped(identity, "neither HTML nor text", size, offset=offset)
    expected = record.content_length
    raw = record.reader.read(limit + 1)
    if len(raw) > limit:
        return Skipped(identity, f"page over {limit / 1e6:g} MB", size, None, True, url, offset)
    if is_plain and len(raw) < expected:
        raise _WrongLength("the record is cut off, or shorter than it says")
    if _RECORD.search(raw):
        raise _WrongLength("the record says that it is longer than it is")
    if content_type.startswith(_HTML):
        return page_document(source, identity, raw, url, charset, offset)
    found = decode(raw, charset)
    if found is None:
        return unknown_encoding(identity, raw, offset)
    meta = {**source_meta(source), "offset": offset}
    return Document(name, found.text, source.label, source.language, url, meta)


def _next_start(file: BinaryIO, after: int) -> int | None:
    """Where the next record, or the next member of an archive, may start."""
    file.seek(0)
    first = file.read(4)
    mark = next((mark for mark in _PACKED if first.startswith(mark)), b"WARC/1.")
    file.seek(after)
    place, held = after, b""
    while chunk := file.read(CHUNK_BYTES):
        held += chunk
        if (found := held.find(mark)) >= 0:
            return place + found
        place += len(held) - len(mark)
        held = held[-len(mark) :]
    return None


def _fastwarc() -> Any:
    return require("fastwarc.warc", 'kind = "warc"', "text")
