"""A shuffle that answers for one place at a time; not for what is shuffled.

What stands at place i of an epoch is computed from (seed, epoch, i) alone, in the same time for
any i and any length, with no table: that is what lets a run begin anywhere in its data.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

ROUNDS = 8
FEWEST_BITS = 8
"""A Feistel network over fewer bits is a poor shuffle: short lengths walk through a longer one."""


def permute(
    places: npt.NDArray[np.int64], n: int, seed: int, epoch: int = 0
) -> npt.NDArray[np.int64]:
    """What stands at the given places of a permutation of 0 … n - 1 (same shape as `places`).

    A Feistel network (Luby & Rackoff 1988) over the bits of n, in two halves that may differ by
    a bit, repeated on whatever lands at n or above (cycle walking: Black & Rogaway 2002). A round
    adds to one half the top bits of a·x + b of the other (Dietzfelbinger 1996), a and b from
    SplitMix64 (Steele, Lea & Flood 2014) of seed, epoch and round. numpy's own generators may
    change their streams between versions; this may not.

    Args:
        places: Each between 0 and n - 1.
        n: Length of the permutation, at least 1.
    """
    bits = max(FEWEST_BITS, (n - 1).bit_length())
    keys = round_keys(seed, epoch)
    x = _feistel(places.astype(np.uint64).reshape(-1), keys, bits)
    outside = np.flatnonzero(x >= n)
    while outside.shape[0]:
        x[outside] = walked = _feistel(x[outside], keys, bits)
        outside = outside[walked >= n]
    return x.astype(np.int64).reshape(places.shape)


@lru_cache(maxsize=64)
def round_keys(seed: int, epoch: int) -> tuple[tuple[np.uint64, np.uint64], ...]:
    """(a, b) of every round; a is odd."""
    key = mix(mix(np.array([seed % (1 << 64)], dtype=np.uint64)) ^ np.uint64(epoch))
    offsets: npt.NDArray[np.uint64] = np.arange(2 * ROUNDS).astype(np.uint64)
    stream = mix(np.add(key, offsets))
    return tuple(
        (a | np.uint64(1), b) for a, b in zip(stream[:ROUNDS], stream[ROUNDS:], strict=True)
    )


def mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's step: wraps around modulo 2^64 by intent."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _feistel(
    x: npt.NDArray[np.uint64], keys: tuple[tuple[np.uint64, np.uint64], ...], bits: int
) -> npt.NDArray[np.uint64]:
    """One pass over the 2^bits numbers; each round changes one half in turn."""
    low_bits = np.uint64(bits // 2)
    to_low, to_high = np.uint64(64) - low_bits, np.uint64(64 - bits) + low_bits
    high = x >> low_bits
    low = x ^ (high << low_bits)
    for number, (a, b) in enumerate(keys):
        if number % 2:
            low = low ^ ((high * a + b) >> to_low)
        else:
            high = high ^ ((low * a + b) >> to_high)
    return (high << low_bits) | low
