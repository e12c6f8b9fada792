"""Turns n-gram counts into probabilities and back-off weights; not for counting or asking.

All three methods come out in one form: an n-gram that was seen has a probability of its own, and
any other word gets the context's back-off weight times its probability one level below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isoflop.models.ngram_counts import Level

Smoothing = Literal["kneser-ney", "katz", "add-k"]
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of Kneser-Ney where the counts of counts give none, as on little text (KenLM's)."""
_KATZ_TRUSTED = 5
"""Counts above this are not discounted (Katz 1987)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """The probabilities of one level's n-grams and the weights of its contexts."""

    probabilities: Floats
    """(U,) of the last token after the others; 0 for the start symbol."""
    backoffs: Floats
    """(U,) what the n-gram, as a context, leaves to the level below it; 1 where none follows."""


def estimate(
    levels: Sequence[Level], smoothing: Smoothing, add_k: float
) -> tuple[tuple[Estimates, ...], tuple[tuple[float, ...], ...]]:
    """Probabilities and back-off weights of every level, and the discounts of each.

    Args:
        add_k: What `add-k` adds to every count.

    Returns:
        The estimates of each level, and the discounts: for `kneser-ney` D1, D2 and D3+, for
        `katz` the factors on counts of 1 to 5, for `add-k` k.
    """
    n_words = levels[0].n_tokens - 1
    below = np.full(levels[0].n_tokens, 1.0 / n_words)
    weights: list[Floats] = []
    probabilities: list[Floats] = []
    discounts: list[tuple[float, ...]] = []
    for level in levels:
        # A unigram has one context, the empty one, and below it every word is as likely.
        lower = below if level.n == 1 else below[level.suffixes]
        n_contexts = 1 if level.n == 1 else levels[level.n - 2].keys.size
        if smoothing == "kneser-ney":
            above = levels[level.n] if level.n < len(levels) else None
            counts = _adjusted(level, above)
            step = _kneser_ney(counts, level.contexts, n_contexts, lower)
        elif smoothing == "katz":
            counts = _words_only(level.counts, level)
            step = _katz(counts, level.contexts, n_contexts, lower, n_words)
        else:
            top = level.n == len(levels)
            step = _add_k(level, n_contexts, add_k if top else np.inf, n_words)
        below, weight, discount = step
        if level.n == 1:
            below = np.append(below[:-1], 0.0)  # the start of a document is never foretold
        probabilities.append(below)
        weights.append(weight)
        discounts.append(discount)
    # What a level leaves below belongs to the contexts, which are the n-grams one level down.
    weights = [*weights[1:], np.ones(levels[-1].keys.size)]
    return tuple(map(Estimates, probabilities, weights)), tuple(discounts)


def _words_only(counts: NDArray[np.int64], level: Level) -> NDArray[np.int64]:
    """Counts with that of the start symbol, if it is in this level, set to 0."""
    if level.n == 1:
        counts = counts.copy()
        counts[-1] = 0
    return counts


def _adjusted(level: Level, above: Level | None) -> NDArray[np.int64]:
    """How many different tokens precede each n-gram (Kneser & Ney 1995).

    Raw counts at the highest level, and for what begins a document, as nothing precedes it.
    """
    if above is None:
        return _words_only(level.counts, level)
    preceding = np.bincount(above.suffixes, minlength=level.keys.size)
    return _words_only(np.where(level.first, level.counts, preceding), level)


def _per_context(
    contexts: NDArray[np.int64], values: NDArray[np.float64] | None, size: int
) -> Floats:
    return np.bincount(contexts, values, minlength=size).astype(np.float64)


def kneser_ney_discounts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """D1, D2 and D3+ from the counts of counts (Chen & Goodman 1998, equation 26).

    `FALLBACK_DISCOUNTS` where they cannot be had: no n-gram occurs once, twice or three times, or
    a discount is not between 0 and its count.
    """
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    if any(not 0 < d <= times for times, d in enumerate(found, 1)):
        return FALLBACK_DISCOUNTS
    return found


def _kneser_ney(
    counts: NDArray[np.int64], contexts: NDArray[np.int64], n_contexts: int, lower: Floats
) -> tuple[Floats, Floats, tuple[float, ...]]:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1998, section 4.1.6)."""
    discounts = kneser_ney_discounts(counts)
    discount = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    total = _per_context(contexts, counts.astype(np.float64), n_contexts)
    taken = _per_context(contexts, discount, n_contexts)
    weight = np.divide(taken, total, out=np.ones(n_contexts), where=total > 0)
    own = (counts - discount) / np.maximum(total[contexts], 1.0)
    return own + weight[contexts] * lower, weight, discounts


def good_turing_factors(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """What counts of 1 to 5 are multiplied by (Katz 1987); 1 where the estimate is unusable.

    With n_r n-grams that occur r times, r* = (r + 1) n_(r+1) / n_r and k = 5, a count of r ≤ k is
    discounted by (r*/r − (k + 1) n_(k+1)/n_1) / (1 − (k + 1) n_(k+1)/n_1).
    """
    times = np.array([int((counts == r).sum()) for r in range(_KATZ_TRUSTED + 2)], float)
    if times[1] == 0:
        return (1.0,) * _KATZ_TRUSTED
    common = (_KATZ_TRUSTED + 1) * times[_KATZ_TRUSTED + 1] / times[1]
    factors = []
    for r in range(1, _KATZ_TRUSTED + 1):
        usable = times[r] > 0 and common < 1
        ratio = (r + 1) * times[r + 1] / times[r] / r if usable else 1.0
        factor = (ratio - common) / (1 - common) if usable else 1.0
        factors.append(float(factor) if 0 < factor <= 1 else 1.0)
    return tuple(factors)


def _katz(
    counts: NDArray[np.int64],
    contexts: NDArray[np.int64],
    n_contexts: int,
    lower: Floats,
    n_words: int,
) -> tuple[Floats, Floats, tuple[float, ...]]:
    """Katz back-off (Katz 1987) with Good-Turing discounts.

    Where no count of a context is discounted nothing would be left for unseen words: one more
    event is then supposed in that context, as SRILM does. A context after which every word was
    seen leaves nothing, and its probabilities are scaled to 1.
    """
    factors = good_turing_factors(counts)
    table = np.array([0.0, *factors, 1.0])
    discounted = counts * table[np.minimum(counts, _KATZ_TRUSTED + 1)]
    seen = counts > 0
    n_seen = _per_context(contexts, seen.astype(np.float64), n_contexts)
    total = _per_context(contexts, counts.astype(np.float64), n_contexts)
    kept = _per_context(contexts, discounted, n_contexts)
    full = n_seen >= n_words
    total = np.where(full, kept, np.where(kept < total * (1 - 1e-12), total, total + 1.0))
    left = 1.0 - np.divide(kept, total, out=np.zeros(n_contexts), where=total > 0)
    covered = _per_context(contexts, np.where(seen, lower, 0.0), n_contexts)
    free = np.where(full, 1.0, 1.0 - covered)
    weight = np.where(full, 0.0, left / free)
    own = discounted / np.maximum(total[contexts], 1e-300)
    return np.where(seen, own, weight[contexts] * lower), weight, factors


def _add_k(
    level: Level, n_contexts: int, k: float, n_words: int
) -> tuple[Floats, Floats, tuple[float, ...]]:
    """(c + k) / (C + k V) after contexts that were seen; below the top level 1 / V (k → ∞)."""
    if np.isinf(k):
        return np.full(level.keys.size, 1.0 / n_words), np.ones(n_contexts), ()
    counts = _words_only(level.counts, level).astype(np.float64)
    total = _per_context(level.contexts, counts, n_contexts)
    own = (counts + k) / (total[level.contexts] + k * n_words)
    return own, k * n_words / (total + k * n_words), (k,)
