"""Counts the n-grams of token documents by sorting; not for turning counts into probabilities.

An n-gram is known by its key: the number of its first n − 1 tokens among the (n − 1)-grams, times
the size of the alphabet, plus its last token. So 64 bits hold n-grams of any length exactly,
without hashing, and the n-grams that share a context stand side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.core.errors import DataError


@dataclass(frozen=True)
class Level:
    """All n-grams of one length, U of them, in the order of their keys."""

    n: int
    """The length."""
    keys: NDArray[np.int64]
    """(U,) ascending: context × (V + 1) + last token; for n = 1 simply the token."""
    counts: NDArray[np.int64]
    """(U,) how often each occurs; at n = 1 it may be 0, and the start of a document is last."""
    suffixes: NDArray[np.int64]
    """(U,) where the n-gram without its first token stands one level below; empty for n = 1."""
    first: NDArray[np.bool_]
    """(U,) whether it begins with the start of a document, so that nothing can precede it."""
    n_tokens: int
    """V + 1, the size of the alphabet with the start of a document, which is token V."""

    @property
    def contexts(self) -> NDArray[np.int64]:
        """(U,) where the n-gram without its last token stands one level below; 0 for n = 1."""
        return self.keys // self.n_tokens


def count(ids: ArrayLike, starts: ArrayLike, vocab_size: int, order: int) -> tuple[Level, ...]:
    """The n-grams of lengths 1 to `order` within documents, one level for each length.

    Every document is preceded by one start symbol, which is never itself foretold. Counting and
    smoothing up to order 5 take some 140 bytes of memory for a token.

    Args:
        ids: (T,) tokens of all documents, one after the other, each below `vocab_size`.
        starts: (documents + 1,) where each document begins; the last entry is T.

    Raises:
        DataError: There is no token, an id is out of range, or `starts` does not ascend to T.
    """
    stream = with_starts(ids, starts, vocab_size)
    n_tokens, start = vocab_size + 1, stream == vocab_size
    positions = np.arange(stream.size) - np.flatnonzero(start)[np.cumsum(start) - 1]
    counts = np.bincount(stream, minlength=n_tokens)
    alphabet = np.arange(n_tokens)
    levels = [Level(1, alphabet, counts, np.empty(0, np.int64), alphabet == vocab_size, n_tokens)]
    below = stream  # where the (n − 1)-gram that ends at each place stands in its level
    for n in range(2, order + 1):
        ends = np.flatnonzero(positions >= n - 1)
        level, below = _level(stream, below, positions, ends, n, n_tokens)
        levels.append(level)
    return tuple(levels)


def _level(
    stream: NDArray[np.int64],
    below: NDArray[np.int64],
    positions: NDArray[np.int64],
    ends: NDArray[np.int64],
    n: int,
    n_tokens: int,
) -> tuple[Level, NDArray[np.int64]]:
    """The level of length n, and where the n-gram that ends at each place stands in it."""
    keys = below[ends - 1] * n_tokens + stream[ends]
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.ones(ordered.size, np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    numbers = np.cumsum(new) - 1
    here = np.zeros(stream.size, np.int64)
    here[ends[order]] = numbers
    one_end = ends[order[new]]
    counts = np.bincount(numbers, minlength=one_end.size)
    first = positions[one_end] == n - 1
    level = Level(n, ordered[new], counts, below[one_end], first, n_tokens)
    return level, here


def with_starts(ids: ArrayLike, starts: ArrayLike, vocab_size: int) -> NDArray[np.int64]:
    """(T + documents,) the tokens with the start symbol, `vocab_size`, before every document.

    Raises:
        DataError: There is no token, an id is out of range, or `starts` does not ascend to T.
    """
    tokens, edges = np.asarray(ids, np.int64), np.asarray(starts, np.int64)
    if tokens.ndim != 1 or tokens.size == 0:
        raise DataError("there is no token to count", fix="Give a sequence of token ids")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise DataError(
            f"token ids lie between {tokens.min()} and {tokens.max()}, not in a vocabulary of "
            f"{vocab_size}",
            fix="Give the vocabulary size of the tokenizer that made them",
        )
    ascending = all(a <= b for a, b in pairwise(edges.tolist()))
    if edges.size < 2 or edges[0] != 0 or edges[-1] != tokens.size or not ascending:
        raise DataError(f"`starts` must ascend from 0 to {tokens.size}, the number of tokens")
    return np.insert(tokens, edges[:-1], vocab_size)
