"""Decompressed bytes and lines of a file in bounded memory, however it was made.

Not for decoding them: bytes come in, bytes go out.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import zstandard

CHUNK_BYTES = 1 << 20
# Zstandard can turn 4 bytes into 128 kB; this much at a time bounds a step to 128 MB.
_ZSTD_STEP_BYTES = 4096
_ZSTD_MAX_WINDOW = 1 << 27
MAX_RATIO = 400
"""Text shrinks 3 to 30 times, logs perhaps 100 times; beyond this an archive is a bomb."""
BOMB_BYTES = 256 << 20
"""No archive is called a bomb before it gave this much."""


class DamagedStream(Exception):
    """A compressed file that cannot be read to its end. What came before it is sound."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file."""

    offset: int
    """Its first byte in the decompressed file."""
    size: int
    """Its length in bytes, without the newline."""
    raw: bytes | None
    """Its content without the newline; None when it is longer than allowed."""


def decompressed(
    file: BinaryIO, name: str, max_ratio: int = MAX_RATIO, bomb_bytes: int = BOMB_BYTES
) -> Iterator[bytes]:
    """The content of a file in pieces, decompressed as the ending of its name says.

    `.gz`, `.bz2` and `.zst` may hold several members or frames one after the other. A step holds
    at most a megabyte (Zstandard: 128 MB, and a window of 128 MB).

    Raises:
        DamagedStream: The archive is cut off, broken, or gives more than `max_ratio` times its
            size (and more than `bomb_bytes`).
        OSError: The file cannot be read.
    """
    kinds: dict[str, type[_Member]] = {".gz": _Gzip, ".bz2": _Bzip2, ".zst": _Zstandard}
    kind = next((made for ending, made in kinds.items() if name.endswith(ending)), None)
    if kind is None:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
        return
    taken = given = 0
    member: _Member | None = None
    while chunk := file.read(CHUNK_BYTES):
        taken += len(chunk)
        while chunk:
            if member is None:
                # gzip and tape archives are padded with zeros.
                chunk = chunk.lstrip(b"\0") if given and kind is _Gzip else chunk
                if not chunk:
                    break
                member = kind()
            for piece in member.pieces(chunk):
                given += len(piece)
                if given > bomb_bytes and given > max_ratio * taken:
                    raise DamagedStream(f"it expands more than {max_ratio} times: a bomb")
                yield piece
            chunk = member.rest
            if member.ended:
                member = None
    if member is not None:
        raise DamagedStream("the archive ends in the middle: it is cut off")


def lines(chunks: Iterable[bytes], max_bytes: int, start: int = 0) -> Iterator[Line]:
    """The lines of a stream, each at most `max_bytes` long or without its content.

    Args:
        chunks: The content from byte `start` on.
    """
    held: list[bytes] = []
    size = 0
    offset = start
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        size += len(first)
        if size <= max_bytes:
            held.append(first)
        else:
            held.clear()
        for piece in others:
            yield Line(offset, size, b"".join(held) if size <= max_bytes else None)
            offset += size + 1
            size = len(piece)
            held = [piece] if size <= max_bytes else []
    if size:
        yield Line(offset, size, b"".join(held) if size <= max_bytes else None)


def lines_between(file: BinaryIO, start: int, stop: int | None, max_bytes: int) -> Iterator[Line]:
    """The lines of an uncompressed file that begin in [start, stop)."""
    file.seek(max(0, start - 1))
    chunks = iter(lambda: file.read(CHUNK_BYTES), b"")
    found = lines(chunks, max_bytes, max(0, start - 1))
    if start:
        next(found, None)  # the line that the split before this one ends with
    for line in found:
        if stop is not None and line.offset >= stop:
            return
        yield line


class _Member(Protocol):
    """One member or frame of an archive."""

    rest: bytes
    """What follows it in the chunk last given."""
    ended: bool

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """The content that a chunk of the archive brings."""
        ...


class _Gzip(_Member):
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.rest, self.ended = b"", False

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        while chunk and not self._inner.eof:
            try:
                piece = self._inner.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise DamagedStream(f"broken gzip: {error}") from None
            chunk = self._inner.unconsumed_tail
            if piece:
                yield piece
        # Output may still wait inside when the input is used up.
        while not self._inner.eof and (piece := self._inner.decompress(b"", CHUNK_BYTES)):
            yield piece
        self.rest, self.ended = self._inner.unused_data, self._inner.eof


class _Bzip2(_Member):
    def __init__(self) -> None:
        self._inner = bz2.BZ2Decompressor()
        self.rest, self.ended = b"", False

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        while not self._inner.eof:
            try:
                piece = self._inner.decompress(chunk, CHUNK_BYTES)
            except (OSError, ValueError) as error:
                raise DamagedStream(f"broken bzip2: {error}") from None
            chunk = b""
            if piece:
                yield piece
            elif self._inner.needs_input:
                break
        self.rest, self.ended = self._inner.unused_data, self._inner.eof


class _Zstandard(_Member):
    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        self._inner = decompressor.decompressobj()
        self.rest, self.ended = b"", False

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        for place in range(0, len(chunk), _ZSTD_STEP_BYTES):
            try:
                piece = self._inner.decompress(chunk[place : place + _ZSTD_STEP_BYTES])
            except zstandard.ZstdError as error:
                raise DamagedStream(f"broken Zstandard: {error}") from None
            if piece:
                yield piece
            if self._inner.eof:
                self.rest = self._inner.unused_data + chunk[place + _ZSTD_STEP_BYTES :]
                self.ended = True
                return
        self.rest = b""
