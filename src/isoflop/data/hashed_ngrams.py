"""Text as hashed n-grams, the features of the quality classifier; not for training text.

The result is the same on every machine and with every version of Python: which characters make
words is fixed here, not asked of the Unicode tables at hand, and the hash is spelled out.

- Characters are folded: capital Latin (to U+00DE), Greek and Cyrillic letters become small.
- A token is a run of letters and digits; a single character of a script without spaces (Chinese,
  kana, hangul, Thai, Lao, Khmer, Burmese); or a single mark. White space only separates.
- A token of characters c_0 … c_k has the number mix(Σ c_i · P_(i mod 64)) mod 2⁶⁴ with the powers
  P_i = 0x9E3779B97F4A7C15^(i+1), where mix is the finaliser of SplitMix64 (Steele et al. 2014).
- The features are all single tokens, all pairs of neighbours, and triples of neighbours of
  scripts without spaces. A pair (a, b) has the number mix(M·a + b) and a triple (a, b, c) the
  number mix(M·pair(a, b) + c) with M = 0xD1342543DE82EF95; the highest bits are the bucket.
- A bucket met n times counts 1 + ln n, and the features of a text have length 1 together.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

MAX_CHARACTERS = 1_000_000
"""A longer document is judged by its beginning."""

_SPACE, _SYMBOL, _RUN, _SINGLE = range(4)
_BASE, _MULTIPLIER = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
_POWERS = np.array([pow(_BASE, i + 1, 1 << 64) for i in range(64)], np.uint64)
_SPACES = ((0, 0x20), (0x7F, 0xA0), (0x1680, 0x1680), (0x2000, 0x200F), (0x2028, 0x202F),
           (0x205F, 0x206F), (0x3000, 0x3000), (0xD800, 0xDFFF), (0xFEFF, 0xFEFF))  # fmt: skip
_SYMBOLS = ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xA9), (0xAB, 0xB4),
            (0xB6, 0xB9), (0xBB, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7), (0x2010, 0x2027),
            (0x2030, 0x205E), (0x2070, 0x2BFF), (0x2E00, 0x2E7F), (0x3001, 0x303F),
            (0xE000, 0xF8FF), (0xFE10, 0xFE6F), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20),
            (0xFF3B, 0xFF40), (0xFF5B, 0xFF65), (0xFFE0, 0xFFFF))  # fmt: skip
_SINGLES = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FFF),
            (0x3040, 0xA4CF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFF66, 0xFF9F))  # fmt: skip
_FOLDED = ((0x41, 0x5A, 0x20), (0xC0, 0xD6, 0x20), (0xD8, 0xDE, 0x20), (0x391, 0x3A1, 0x20),
           (0x3A3, 0x3A9, 0x20), (0x400, 0x40F, 0x50), (0x410, 0x42F, 0x20))  # fmt: skip


def hashed_ngrams(text: str, bits: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The features of a text.

    Args:
        bits: There are 2^bits buckets; 1 to 31.

    Returns:
        (F,) buckets, ascending, and (F,) their values, the sum of whose squares is 1; both empty
        for a text without tokens.
    """
    tokens, single = _tokens(text)
    pairs = _joined(tokens[:-1], tokens[1:])
    inside = single[:-2] & single[1:-1] & single[2:]
    triples = _joined(pairs[:-1][inside], tokens[2:][inside])
    numbers = np.concatenate([tokens, pairs, triples])
    buckets, counts = np.unique(numbers >> np.uint64(64 - bits), return_counts=True)
    values = 1.0 + np.log(counts)
    return buckets.astype(np.int64), values / max(np.sqrt(values @ values), 1.0)


def _tokens(text: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(T,) the number of every token and whether it is a character of a script without spaces."""
    points = np.frombuffer(text[:MAX_CHARACTERS].encode("utf-32-le", "surrogatepass"), np.uint32)
    classes, folded = _tables()
    kinds = classes[np.minimum(points, 0xFFFF)]
    astral = points > 0xFFFF
    if astral.any():
        kinds[astral] = np.where(points[astral] >= 0x20000, _SINGLE, _SYMBOL)
        points = np.where(astral, points, folded[np.minimum(points, 0xFFFF)])
    else:
        points = folded[points]
    begins = kinds != _SPACE
    begins[1:] &= (kinds[1:] != _RUN) | (kinds[:-1] != _RUN)
    kept = np.flatnonzero(kinds != _SPACE)
    starts = np.flatnonzero(begins[kept])
    if starts.size == 0:
        return np.empty(0, np.uint64), np.empty(0, np.bool_)
    lengths = np.diff(starts, append=kept.size)
    places = np.arange(kept.size) - np.repeat(starts, lengths)
    sums = np.add.reduceat(points[kept].astype(np.uint64) * _POWERS[places & 63], starts)
    return _mix(sums), kinds[kept[starts]] == _SINGLE


def _joined(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _mix(first * np.uint64(_MULTIPLIER) + second)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """(65536,) the kind of every character of the basic plane, and (65536,) what it folds to."""
    kinds = np.full(0x10000, _RUN, np.uint8)
    for ranges, kind in ((_SPACES, _SPACE), (_SYMBOLS, _SYMBOL), (_SINGLES, _SINGLE)):
        for low, high in ranges:
            kinds[low : high + 1] = kind
    folded = np.arange(0x10000, dtype=np.uint32)
    for low, high, distance in _FOLDED:
        folded[low : high + 1] += np.uint32(distance)
    return kinds, folded
