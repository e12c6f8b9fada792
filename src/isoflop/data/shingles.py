"""Cuts texts into tokens and hashes every run of n of them; not for comparing documents.

A token is a word or figure of a spaced script, or one character of a script without spaces
(ideographs, kana, Thai …). Case, full width, punctuation and white space do not count, so a text
that was only laid out anew has the same shingles. The language need not be known.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from isoflop.data.rolling_hash import mixed, scales, weighted_sums

# Characters (UTF-16 units) handled at once: the arrays of a block fit the cache of one core.
BLOCK_UNITS = 1 << 17
# A longer text is cut into blocks that overlap by this much, so that no run of a few tokens is
# lost at an edge; a run seen twice changes no set.
_OVERLAP_UNITS = 1 << 10

SHINGLE_TOKENS = 5
"""Tokens of a shingle for near duplicates: five words, or five ideographs."""

_SEPARATOR, _WORD, _UNSPACED, _CONTINUATION = range(4)
# Thai, Lao; Tibetan, Burmese; Khmer; ideographs, kana and bopomofo but not hangul; full-width
# forms are folded. Both ends included.
_UNSPACED_BLOCKS = (
    (0x0E00, 0x0EFF), (0x0F00, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x318F), (0x31A0, 0x9FFF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9D),
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """The tokens of several texts, or of a part of one long text.

    T tokens of B texts; positions count UTF-16 units of the whole text they lie in.
    """

    first: int
    """Number of the first text in the block; the others follow."""
    bounds: NDArray[np.int64]
    """(B + 1,) the tokens of text b are bounds[b] to bounds[b + 1]."""
    begins: NDArray[np.int64]
    """(T,) where each token begins in its text."""
    sums: NDArray[np.uint64]
    """(T + 1,) weighted sums of all characters before each token, and of all."""
    scales: NDArray[np.uint64]
    """(T,) what a sum from each token on is to be multiplied with, whatever stands before."""

    def runs(self, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Hashes of all runs of n tokens within a text, and the token each begins with.

        Returns:
            (S,) hashes, equal for equal tokens wherever they stand, and (S,) token numbers.
        """
        n_tokens = self.begins.size
        if n_tokens < n:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        hashes = self.sums[n:] - self.sums[:-n]
        hashes *= self.scales[: hashes.size]
        mixed(hashes)
        # A run that begins among the last n - 1 tokens of a text would reach into the next.
        whole = np.ones(n_tokens, np.bool_)
        for back in range(1, n):
            ends = self.bounds[1:] - back
            whole[ends[ends >= self.bounds[:-1]]] = False
        starts = np.flatnonzero(whole[: hashes.size])
        return (hashes if starts.size == hashes.size else hashes[starts]), starts

    def shingles(self, n: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The upper halves of the hashes of all runs, (S,), and the (B + 1,) bounds by text."""
        hashes, _ = self.runs(n)
        counts = np.maximum(np.diff(self.bounds) - (n - 1), 0)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return (hashes >> np.uint64(32)).astype(np.uint32), bounds


def token_blocks(texts: Sequence[str]) -> Iterator[Block]:
    """The tokens of texts, some 128 K characters at a time.

    A text longer than that comes in several blocks of its own, which overlap a little. Memory is
    some 4 MB beside the texts, whatever their length.
    """
    waiting: list[bytes] = []
    size, first = 0, 0
    for number, text in enumerate(texts):
        units = text.encode("utf-16-le", "surrogatepass")
        if waiting and size + len(units) > 2 * BLOCK_UNITS:
            yield _block(waiting, first)
            waiting, size = [], 0
        if not waiting:
            first = number
        if len(units) > 2 * BLOCK_UNITS:
            yield from _parts(units, number)
            continue
        waiting.append(units)
        size += len(units) + 2
    if waiting:
        yield _block(waiting, first)


def shingle_sets(
    texts: Sequence[str], n: int = SHINGLE_TOKENS
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The sets of shingles of texts, each sorted and without repeats.

    Returns:
        (S,) all of them, and (len(texts) + 1,) bounds: the set of text i lies from bound i on.
    """
    found: list[list[NDArray[np.uint32]]] = [[] for _ in texts]
    for block in token_blocks(texts):
        hashes, bounds = block.shingles(n)
        for b in range(bounds.size - 1):
            found[block.first + b].append(hashes[bounds[b] : bounds[b + 1]])
    sets = [_distinct(np.concatenate(parts)) for parts in found]
    bounds = np.concatenate([[0], np.cumsum([part.size for part in sets])]).astype(np.int64)
    return np.concatenate([np.empty(0, np.uint32), *sets]), bounds


def _distinct(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The values in order, each once."""
    values.sort()
    return values[np.append(True, values[1:] != values[:-1])] if values.size else values


def _parts(units: bytes, number: int) -> Iterator[Block]:
    values = np.frombuffer(units, np.uint16)
    begin = 0
    while True:
        end = begin + BLOCK_UNITS
        part = values[begin:end].copy()
        words = _tables()[0][part] == _WORD
        # Words that the edges cut in two are whole in the block before or after this one (but
        # for words longer than the overlap, which are left out).
        if begin > 0:
            part[: part.size if words.all() else int(words.argmin())] = 0
        if end < values.size:
            part[part.size - (part.size if words.all() else int(words[::-1].argmin())) :] = 0
        yield _block([part.tobytes()], number, begin)
        if end >= values.size:
            return
        begin = end - _OVERLAP_UNITS


def _block(parts: list[bytes], first: int, offset: int = 0) -> Block:
    # A separator (NUL) between two texts ends the last token of the former.
    units = np.frombuffer(b"\0\0".join(parts), np.uint16)
    classes = _tables()[0][units]
    starts = classes == _UNSPACED
    words = classes == _WORD
    starts[0:1] |= words[0:1]
    starts[1:] |= words[1:] & ~words[:-1]
    kept = classes != _SEPARATOR
    where = np.flatnonzero(starts)
    inner = np.flatnonzero(starts[kept])
    characters = _tables()[1][units[kept]].astype(np.uint64)
    # The first character of a token differs from the same one inside, so "ab c" is not "a bc".
    characters[inner] += np.uint64(0x10000)
    sums = weighted_sums(characters)
    text_begins = np.cumsum([0, *(len(part) // 2 + 1 for part in parts)])
    bounds = np.searchsorted(where, text_begins)
    begins = where - np.repeat(text_begins[:-1], np.diff(bounds)) + offset
    return Block(
        first=first,
        bounds=bounds,
        begins=begins,
        sums=sums[np.append(inner, sums.size - 1)],
        scales=scales(inner),
    )


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """(65536,) the class of every UTF-16 unit, and the unit it is folded to."""
    classes = np.full(0x10000, _SEPARATOR, np.uint8)
    folds = np.arange(0x10000, dtype=np.uint16)
    for point in range(0x10000):
        char = chr(point)
        if char == "_" or char.isalnum() or unicodedata.category(char)[0] == "M":
            classes[point] = _WORD
            folded = unicodedata.normalize("NFKC", char).lower()
            if len(folded) == 1 and folded <= "\uffff":
                folds[point] = ord(folded)
    for begin, end in _UNSPACED_BLOCKS:
        block = classes[begin : end + 1]
        block[block == _WORD] = _UNSPACED
    # Beyond the basic plane every character (rare ideographs, emoji) is a token of two units.
    classes[0xD800:0xDC00] = _UNSPACED
    classes[0xDC00:0xE000] = _CONTINUATION
    return classes, folds
