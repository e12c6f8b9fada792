"""Hashes of any run of characters from weighted sums over all of them; not cryptographic.

The polynomial hash of Karp and Rabin (1987) modulo 2^64, at a few vector operations a character:
with sums S of c_i b^i, the run from i to j has the hash (S_j - S_i) b^-i wherever it stands.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CHARACTERS = (1 << 18) + 2
"""How many characters may be summed at once: the arrays fit the cache of one core."""

# Odd, so that it has an inverse modulo 2^64.
_BASE = 0x9E6C63D0876A3F6B
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # of the finaliser of MurmurHash3 (Appleby 2011)


def weighted_sums(characters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(n + 1,) the sums before each of n characters and over all; overwrites `characters`."""
    characters *= _powers()[0][: characters.size]
    sums = np.empty(characters.size + 1, np.uint64)
    sums[0] = 0
    np.cumsum(characters, out=sums[1:])
    return sums


def scales(begins: NDArray[np.int64] | slice) -> NDArray[np.uint64]:
    """What the difference of two sums is to be multiplied with, by where the run begins."""
    return _powers()[1][begins]


def mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The hashes with every bit depending on all, in place."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(29)
    return hashes


def window_hashes(characters: NDArray[Any], length: int) -> NDArray[np.uint64]:
    """(n - length + 1,) hashes of all runs of `length` among n ≥ length characters."""
    sums = weighted_sums(characters.astype(np.uint64))
    hashes = sums[length:] - sums[:-length]
    hashes *= scales(slice(hashes.size))
    return mixed(hashes)


@cache
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Powers of the base and of its inverse modulo 2^64."""
    bases = np.array([_BASE, pow(_BASE, -1, 1 << 64)], np.uint64)
    powers = np.cumprod(np.broadcast_to(bases[:, None], (2, MAX_CHARACTERS)), axis=1)
    return powers[0], powers[1]
