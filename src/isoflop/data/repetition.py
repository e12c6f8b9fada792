"""Characters inside repeated n-grams (Gopher's rules) for all n at once; not for whole duplicates.

An n-gram can only be repeated where both (n-1)-grams inside it are. So one sort of the bigrams
leaves a few candidates, and every longer n is decided among those of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Repetition:
    """Characters covered by repeated n-grams of one text."""

    top: dict[int, int]
    """n → characters of the most frequent n-gram, times its count."""
    duplicate: dict[int, int]
    """n → characters of the n-grams seen before, each character once (Rae et al. 2021, A.1.1)."""


def repetition(
    ids: NDArray[np.int64],
    lengths: NDArray[np.int64],
    top: Iterable[int],
    duplicate: Iterable[int],
    gap: int,
) -> Repetition:
    """Count the characters of repeated n-grams.

    The most frequent n-gram is the earliest among equals, and counts `gap` characters between its
    tokens. Duplicates are walked from left to right: an n-gram seen before counts and is stepped
    over whole, any other is remembered.

    Args:
        ids: (T,) tokens as numbers.
        lengths: (T,) characters of each token.
        gap: Characters between two tokens: 1 for words, 0 for ideographs.
    """
    top, duplicate = frozenset(top), frozenset(duplicate)
    largest = max(top | duplicate)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    where, labels = np.arange(ids.size), ids
    tops: dict[int, int] = {}
    duplicates: dict[int, int] = {}
    for n in range(2, largest + 1):
        if where.size:
            where, labels = _repeated(where, labels)
        if n in top:
            tops[n] = _top(where, labels, ends, n, gap)
        if n in duplicate:
            duplicates[n] = _walk(where, labels, ends, n)
    return Repetition(tops, duplicates)


def _repeated(
    where: NDArray[np.int64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From places and labels of repeated (n-1)-grams (all, for n = 2) to those of n-grams."""
    adjacent = np.flatnonzero(where[1:] == where[:-1] + 1)
    if not adjacent.size:
        return where[:0], labels[:0]
    keys = labels[adjacent] * (labels.max() + 1) + labels[adjacent + 1]
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.empty(keys.size, bool)
    new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    shared = ~new
    shared[:-1] |= ~new[1:]
    group = np.full(keys.size, -1)
    group[order[shared]] = np.cumsum(new)[shared]
    kept = np.flatnonzero(group >= 0)
    return where[adjacent[kept]], group[kept]


def _top(
    where: NDArray[np.int64],
    labels: NDArray[np.int64],
    ends: NDArray[np.int64],
    n: int,
    gap: int,
) -> int:
    if ends.size <= n:  # fewer than n tokens
        return 0
    first, count = 0, 1
    if where.size:
        counts = np.bincount(labels)
        count = int(counts.max())
        first = int(where[np.argmax(counts[labels] == count)])
    return int(ends[first + n] - ends[first] + gap * (n - 1)) * count


def _walk(
    where: NDArray[np.int64], labels: NDArray[np.int64], ends: NDArray[np.int64], n: int
) -> int:
    if not where.size:
        return 0
    sizes = ends[where + n] - ends[where]
    seen: set[int] = set()
    total = after = 0
    for place, label, size in zip(where.tolist(), labels.tolist(), sizes.tolist(), strict=True):
        if place < after:
            continue
        if label in seen:
            total += size
            after = place + n
        else:
            seen.add(label)
    return total
