"""MinHash signatures of texts and the band keys under which near duplicates meet.

Not for deciding which documents fall (`near_duplicates`). MinHash: Broder 1997; banding:
Leskovec, Rajaraman and Ullman 2020, section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isoflop.data.shingles import SHINGLE_TOKENS, token_blocks

BANDS, ROWS = 22, 5
"""Texts of Jaccard similarity s share a band with probability 1 - (1 - s^5)^22: 0.9997 at 0.8,
0.98 at 0.7, 0.48 at 0.5, 0.05 at 0.3."""
PERMUTATIONS = BANDS * ROWS
EMPTY = 0xFFFFFFFF
"""Fills the signature of a text of fewer than five tokens, which has none."""


def signatures(texts: Sequence[str], n: int = SHINGLE_TOKENS) -> NDArray[np.uint32]:
    """The MinHash signatures of texts.

    Two signatures agree in each of their numbers with a probability equal to the Jaccard
    similarity of the texts' sets of shingles (runs of n tokens).

    Returns:
        (len(texts), 110); rows of `EMPTY` for texts of fewer than n tokens.
    """
    found = np.full((len(texts), PERMUTATIONS), EMPTY, np.uint32)
    for block in token_blocks(texts):
        hashes, bounds = block.shingles(n)
        filled = np.flatnonzero(bounds[1:] > bounds[:-1])
        if filled.size:
            rows = _minima(hashes, bounds[filled])
            # A long text comes in several blocks: the least over all of them counts.
            found[block.first + filled] = np.minimum(found[block.first + filled], rows)
    return found


def band_keys(signature: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """(D, 22) keys of (D, 110) signatures; texts with a key in common are candidates.

    Keys of different bands never meet but by chance, so that one grouping serves all bands.
    Rows of texts without a signature must be left out by the caller (`has_signature`).
    """
    return np.stack([band_key(signature, band) for band in range(BANDS)], axis=1)


def band_key(signature: NDArray[np.uint32], band: int) -> NDArray[np.uint64]:
    """(D,) keys of one band."""
    keys = np.full(len(signature), _WEIGHTS[ROWS], np.uint64)
    keys *= np.uint64(band + 1)
    for row in range(ROWS):
        keys += signature[:, band * ROWS + row] * _WEIGHTS[row]
        keys ^= keys >> np.uint64(31)
        keys *= _WEIGHTS[ROWS + 1]
    return keys


def has_signature(signature: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """(D,) whether the text was long enough to have a signature."""
    filled: NDArray[np.bool_] = (signature[:, :ROWS] != EMPTY).any(axis=1)
    return filled


def agreement(
    signature: NDArray[np.uint32],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    other: NDArray[np.uint32] | None = None,
) -> NDArray[np.float64]:
    """(P,) the share of equal numbers in pairs of signatures: an estimate of their similarity.

    Unbiased, with standard deviation sqrt(s (1 - s) / 110): 0.044 at s = 0.7.

    Args:
        first: (P,) rows of `signature`.
        second: (P,) rows of `other`, or of `signature` when that is omitted.
    """
    other = signature if other is None else other
    shares = np.empty(first.size)
    step = 1 << 14  # bounds the memory of the gathered rows
    for at in range(0, first.size, step):
        part = slice(at, at + step)
        equal = signature[first[part]] == other[second[part]]
        shares[part] = equal.sum(axis=1) / PERMUTATIONS
    return shares


def _minima(hashes: NDArray[np.uint32], begins: NDArray[np.int64]) -> NDArray[np.uint32]:
    """(B, 110) the least of every permutation of the hashes from each beginning to the next."""
    minima = np.empty((PERMUTATIONS, begins.size), np.uint32)
    permuted = np.empty_like(hashes)
    for row, factor in zip(minima, _FACTORS, strict=True):
        np.multiply(hashes, factor, out=permuted)
        np.minimum.reduceat(permuted, begins, out=row)
    return minima.T


def _splitmix(n: int, state: int) -> NDArray[np.uint64]:
    """n numbers of SplitMix64 (Steele, Lea and Flood 2014): the same in every version of numpy."""
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(state)
    steps = (steps ^ steps >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    steps = (steps ^ steps >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return steps ^ steps >> np.uint64(31)


# Multiplying by an odd number permutes the 32-bit hashes.
_FACTORS = (_splitmix(PERMUTATIONS, 4) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_WEIGHTS = _splitmix(ROWS + 2, 22) | np.uint64(1)
