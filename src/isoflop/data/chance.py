"""Uniform numbers that are a pure function of (seed, purpose, row, place); not a shuffle
(`permutation`).

What is masked in a row must not depend on which rank asks for the row, with which others, or after
which restart. So no generator is kept: every number is hashed anew from what names it.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from isoflop.data.permutation import mix


def uniforms(
    seed: int, purpose: str, rows_B: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.float64]:
    """(B, count) numbers in [0, 1), independent for different seeds, purposes, rows and places.

    Args:
        purpose: What they decide, so that two decisions about one row are independent.
        rows_B: Global index of each row, the same in every layout of a run.
    """
    salt = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    key = mix(mix(np.array([seed % (1 << 64)], dtype=np.uint64)) ^ np.uint64(salt))
    keys_B = mix(key ^ rows_B.astype(np.uint64))
    bits: npt.NDArray[np.uint64] = mix(keys_B[:, None] + np.arange(count).astype(np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
