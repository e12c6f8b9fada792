"""Reads trees of plain text and Markdown: one document a file. Not for HTML (`web_pages`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.encodings import decode
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import find_files, open_file, read_errors, unreadable, whole

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
ENDINGS = (".txt", ".md", ".markdown", ".rst", ".text")


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """One split a file."""
    return whole(find_files(source, ENDINGS), seed)


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The file as one document."""
    raw = read_whole(source, split)
    if isinstance(raw, Skipped):
        yield raw
        return
    found = decode(raw)
    if found is None:
        yield unknown_encoding(split.identity, raw)
        return
    meta = source_meta(source)
    if found.encoding != "utf-8":
        meta["encoding"] = found.encoding
    yield Document(split.identity, found.text, source.label, source.language, meta=meta)


def read_whole(source: SourceConfig, split: InputSplit) -> bytes | Skipped:
    """The content of a file, unless it is unreadable or longer than the source allows."""
    try:
        with open_file(split.location) as file:
            raw = file.read(source.max_document_bytes + 1)
    except read_errors() as error:
        return unreadable(split.identity, error)
    if len(raw) > source.max_document_bytes:
        reason = f"file over {source.max_document_bytes / 1e6:g} MB"
        return Skipped(split.identity, reason, split.bytes, broken=True)
    return raw


def unknown_encoding(identity: str, raw: bytes, offset: int | None = None) -> Skipped:
    """The note that bytes are in no encoding, or could be in several."""
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place, detail = error.start, str(error)
    else:
        control = _CONTROL.search(raw)
        place = control.start() if control else 0
        detail = (
            f"byte {raw[place]:#04x} in position {place}, a control character as in binary files"
            if control
            else "it could be in several"
        )
    line = raw.count(b"\n", 0, place) + 1 if offset is None else None
    return Skipped(identity, "unknown encoding", len(raw), line, True, detail, offset)


def source_meta(source: SourceConfig) -> dict[str, object]:
    """What the recipe says of every document of a source."""
    return {"license": source.license} if source.license else {}
