"""Reads the articles of Wikimedia's XML dumps, plain or compressed; not its other exports.

A dump is read as text, not through an XML parser: dumps are regular, and no entity can expand.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import cut, find_files, open_file, read_errors, unreadable, whole
from isoflop.data.sources.streams import (
    BOMB_BYTES,
    CHUNK_BYTES,
    MAX_RATIO,
    DamagedStream,
    decompressed,
)
from isoflop.data.wikitext import plain_text

ENDINGS = (".xml", ".xml.bz2", ".xml.gz", ".xml.zst")
_WHOLE = (".gz", ".zst")
# Wikimedia's projects publish text under it since June 2023.
_LICENCE = "CC-BY-SA-4.0"
_OPENING, _CLOSING = b"<page>", b"</page>"
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")
_HEAD_BYTES = 1 << 16
_LANGUAGE = re.compile(rb"<mediawiki\b[^>]*\bxml:lang=\"([\w-]+)\"")
_BASE = re.compile(rb"<base>(https?://[^/<]+)/")
_TITLE = re.compile(rb"<title>(.*?)</title>", re.S)
_NAMESPACE = re.compile(rb"<ns>(-?\d+)</ns>")
_ID = re.compile(rb"<id>(\d+)</id>")
_REDIRECT = re.compile(rb"<redirect\b")
_TEXT = re.compile(rb"<text\b[^>]*>(.*)</text>", re.S)

_BZIP2_BYTES = 10


class _Piece(NamedTuple):
    """A part of a decompressed dump."""

    place: int
    """Of its first byte or, in a bzip2 file, of its stream in the file."""
    content: bytes
    is_beyond: bool = False
    """Whether it follows the split: only a page begun within is of interest."""
    is_exact: bool = True


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """Plain files and bzip2 files cut by bytes (dumps are many bzip2 streams), others whole."""
    files = find_files(source, ENDINGS)
    packed = [file for file in files if file.location.endswith(_WHOLE)]
    return [
        *cut([file for file in files if file not in packed], seed),
        *whole(packed, seed),
    ]


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The articles whose page begins in the split; `meta.offset` is where (in a bzip2 file, where
    its stream begins)."""
    offset = split.start
    try:
        with open_file(split.location) as file:
            language, base = _site(file, split.location)
            if split.location.endswith(_WHOLE):
                pieces = _packed(file, split.location)
            elif split.location.endswith(".bz2"):
                pieces = _bzip2(file, split)
            else:
                pieces = _plain(file, split)
            for offset, page in _pages(pieces, source.max_document_bytes):
                if page is None:
                    reason = f"page over {source.max_document_bytes / 1e6:g} MB"
                    yield Skipped(split.identity, reason, broken=True, offset=offset)
                else:
                    yield _article(source, split.identity, offset, page, language, base)
    except read_errors(DamagedStream) as error:
        yield unreadable(split.identity, error, offset=offset)


def _site(file: BinaryIO, location: str) -> tuple[str, str]:
    """Language and address of the wiki, by the head of the dump."""
    head = b""
    for piece in decompressed(file, location):
        head += piece
        if len(head) >= _HEAD_BYTES or _OPENING in head:
            break
    file.seek(0)
    language, base = _LANGUAGE.search(head), _BASE.search(head)
    return (
        language.group(1).decode() if language else "",
        base.group(1).decode("utf-8", "replace") if base else "",
    )


def _article(
    source: SourceConfig, identity: str, offset: int, page: bytes, language: str, base: str
) -> Document | Skipped:
    title, number, text = _TITLE.search(page[:4096]), _ID.search(page), _TEXT.search(page)
    space = _NAMESPACE.search(page)
    if not title or not number or not space:
        detail = "no title, number or namespace"
        return Skipped(identity, "broken page", len(page), None, True, detail, offset)
    name = f"{identity}:{number.group(1).decode()}"
    if space.group(1) != b"0":
        return Skipped(name, "not an article", len(page))
    if _REDIRECT.search(page):
        return Skipped(name, "a redirect", len(page))
    try:
        heading = _unescaped(title.group(1))
        body = plain_text(_unescaped(text.group(1))) if text else ""
    except UnicodeDecodeError as error:
        return Skipped(identity, "not UTF-8", len(page), None, True, str(error), offset)
    if not body:
        return Skipped(name, "no text in the article", len(page))
    return Document(
        id=name,
        text=f"{heading}\n\n{body}",
        source=source.label,
        language=source.language if source.language != "und" else language or "und",
        url=f"{base}/wiki/{quote(heading.replace(' ', '_'))}" if base else "",
        meta={"license": source.license or _LICENCE, "title": heading, "offset": offset},
    )


def _unescaped(raw: bytes) -> str:
    text = raw.decode()
    for name, character in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("#039", "'"), ("amp", "&")):
        text = text.replace(f"&{name};", character)
    return text


# --- pages in a stream of bytes ------------------------------------------------------------


def _pages(pieces: Iterator[_Piece], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Pages that begin within the split, with their place; None for one that is too long.

    A page that begins within the split may end beyond it, even if only `<pa` stands within.
    """
    buffer, first = b"", 0  # `first` bytes came before the buffer
    places: list[tuple[int, _Piece]] = []  # of the pieces that the buffer consists of
    opened: int | None = None  # where in the buffer an unfinished page begins
    own: int | None = None  # bytes of the split, once its end is known
    size = searched = 0
    for piece in pieces:
        if piece.is_beyond and own is None:
            own = first + len(buffer)
        if own is not None and opened is None and not buffer:
            return
        places.append((first + len(buffer), piece))
        buffer += piece.content
        at = 0
        while True:
            if opened is None:
                found = buffer.find(_OPENING, at)
                if found < 0:
                    at = len(buffer) - _length_of_cut_tag(buffer)
                    break
                if own is not None and first + found >= own:
                    return
                opened = searched = found
                size, place = 0, _place(places, first + found)
            end = buffer.find(_CLOSING, searched)
            if end < 0:
                searched = max(opened, len(buffer) - len(_CLOSING))
                at = opened
                break
            at = end + len(_CLOSING)
            size += at - opened
            yield place, None if size > max_bytes else buffer[opened:at]
            opened = None
        if opened is not None and len(buffer) - opened > max_bytes:
            size += searched - opened  # too long to be kept: only its end is looked for
            at = opened = searched
        buffer, first = buffer[at:], first + at
        if opened is not None:
            opened, searched = 0, searched - at
        places = [p for p in places if p[0] + len(p[1].content) > first]
    if opened is not None:
        raise DamagedStream("the dump ends in the middle of a page: it is cut off")


def _length_of_cut_tag(buffer: bytes) -> int:
    """How many last bytes may be the beginning of a page's opening tag."""
    return next(n for n in range(len(_OPENING) - 1, -1, -1) if buffer.endswith(_OPENING[:n]))


def _place(places: list[tuple[int, _Piece]], position: int) -> int:
    start, piece = next(p for p in reversed(places) if p[0] <= position)
    return piece.place + (position - start if piece.is_exact else 0)


def _packed(file: BinaryIO, location: str) -> Iterator[_Piece]:
    place = 0
    for content in decompressed(file, location):
        yield _Piece(place, content)
        place += len(content)


def _plain(file: BinaryIO, split: InputSplit) -> Iterator[_Piece]:
    place = split.start
    file.seek(place)
    while True:
        is_beyond = split.stop is not None and place >= split.stop
        size = CHUNK_BYTES
        if split.stop is not None and not is_beyond:
            size = min(size, split.stop - place)
        content = file.read(size)
        if not content:
            return
        yield _Piece(place, content, is_beyond)
        place += len(content)


def _bzip2(file: BinaryIO, split: InputSplit) -> Iterator[_Piece]:
    """The streams that begin in the split, then the following ones."""
    start = _next_stream(file, split.start, split.stop)
    while start is not None:
        file.seek(start)
        stream, place, given = bz2.BZ2Decompressor(), start, 0
        is_beyond = split.stop is not None and start >= split.stop
        while not stream.eof:
            chunk = file.read(CHUNK_BYTES) if stream.needs_input else b""
            if stream.needs_input and not chunk:
                raise DamagedStream("the archive ends in the middle: it is cut off")
            place += len(chunk)
            try:
                content = stream.decompress(chunk, CHUNK_BYTES)
            except (OSError, ValueError) as error:
                raise DamagedStream(f"broken bzip2: {error}") from None
            given += len(content)
            if given > BOMB_BYTES and given > MAX_RATIO * (place - start):
                raise DamagedStream(f"it expands more than {MAX_RATIO} times: a bomb")
            if content:
                yield _Piece(start, content, is_beyond, is_exact=False)
        start = _next_stream(file, place - len(stream.unused_data), None)


def _next_stream(file: BinaryIO, after: int, stop: int | None) -> int | None:
    """Where the next bzip2 stream begins, from `after` on and before `stop`."""
    file.seek(after)
    place, held = after, b""
    while stop is None or place < stop:
        chunk = file.read(CHUNK_BYTES)
        held += chunk
        if found := _BZIP2.search(held):
            start = place + found.start()
            return start if stop is None or start < stop else None
        if not chunk:
            return None
        keep = min(len(held), _BZIP2_BYTES - 1)
        place, held = place + len(held) - keep, held[len(held) - keep :]
    return None
