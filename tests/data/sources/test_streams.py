from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data.sources.streams import DamagedStream, decompressed, lines, lines_between

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
NOISE = bytes((i * i * 7 + i // 3) % 251 for i in range(300_000))


def unpack(content: bytes, ending: str, **limits: int) -> bytes:
    return b"".join(decompressed(io.BytesIO(content), f"x{ending}", **limits))


def until_damage(content: bytes, ending: str, **limits: int) -> tuple[bytes, str]:
    """What is given before the damage, and what is said of it."""
    given = b""
    try:
        for piece in decompressed(io.BytesIO(content), f"x{ending}", **limits):
            given += piece
    except DamagedStream as error:
        return given, str(error)
    return given, ""


@pytest.mark.parametrize("ending", PACK)
def test_members_one_after_the_other_are_one_file(ending: str) -> None:
    pack = PACK[ending]
    assert unpack(pack(NOISE) + pack(b"") + pack(b"end"), ending) == NOISE + b"end"
    assert unpack(b"", ending) == b""


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_cut_archive_gives_a_prefix_and_then_says_so(ending: str, share: float) -> None:
    packed = PACK[ending](NOISE)
    given, error = until_damage(packed[: int(len(packed) * share)], ending)
    assert NOISE.startswith(given)
    assert "cut off" in error


@pytest.mark.parametrize("ending", PACK)
def test_bombs_are_stopped_early_and_dense_text_is_not(ending: str) -> None:
    packed = PACK[ending](b"a" * 20_000_000)
    given, error = until_damage(packed, ending, max_ratio=50, bomb_bytes=1_000_000)
    assert len(given) < 20_000_000
    assert "bomb" in error
    assert len(unpack(packed, ending, max_ratio=50, bomb_bytes=1 << 30)) == 20_000_000


@pytest.mark.parametrize("ending", PACK)
def test_flipped_bytes_never_pass_for_the_file(ending: str) -> None:
    packed = bytearray(PACK[ending](NOISE))
    packed[len(packed) // 2] ^= 0xFF
    if ending == ".zst":  # without a checksum; wrong bytes may pass, a crash may not
        try:
            unpack(bytes(packed), ending)
        except DamagedStream:
            return
    else:
        with pytest.raises(DamagedStream):
            unpack(bytes(packed), ending)


def test_a_gzip_file_may_be_padded_with_zeros() -> None:
    assert unpack(gzip.compress(b"text") + b"\0" * 512, ".gz") == b"text"


@given(
    st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=30),
    st.integers(1, 12),
    st.integers(1, 8),
)
def test_lines_are_whole_whatever_the_chunks_and_long_ones_are_measured(
    parts: list[bytes], chunk: int, limit: int
) -> None:
    content = b"\n".join(parts)
    chunks = [content[i : i + chunk] for i in range(0, len(content), chunk)]
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = list(lines(chunks, limit))
    assert [line.size for line in found] == list(map(len, expected))
    assert [line.raw for line in found] == [p if len(p) <= limit else None for p in expected]
    assert all(
        content[line.offset :].startswith(p) for line, p in zip(found, expected, strict=True)
    )


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_every_line_belongs_to_exactly_one_range(content: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    whole = list(lines_between(io.BytesIO(content), 0, None, 100))
    parts = [
        line
        for start, stop in pairwise(edges)
        for line in lines_between(io.BytesIO(content), start, stop, 100)
    ]
    assert parts == whole
