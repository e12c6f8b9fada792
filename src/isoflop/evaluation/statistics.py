"""How sure a score is: intervals, paired differences, chance, and how many items it takes.

Not for the scores themselves (`metrics.py`). Intervals are for items drawn from a population of
such items (Miller 2024, "Adding Error Bars to Evals").
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError

LEVEL = 0.95
POWER = 0.8
DRAWS = 10_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean or ratio with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One model's score less another's on the same items."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided: how often chance alone would give as large a difference. McNemar's exact test
    for scores of 0 and 1, the paired bootstrap otherwise."""
    n: int

    @property
    def seen(self) -> bool:
        """Whether the interval excludes no difference."""
        return not self.low <= 0 <= self.high


def quantile(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(successes: int, n: int, level: float = LEVEL) -> Estimate:
    """The score interval of a share (Wilson 1927): sound for few items and shares near 0 or 1.

    Raises:
        DataError: There are no items.
    """
    _need(n)
    z2 = quantile(level) ** 2
    share = successes / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At 0 and n successes the bounds are 0 and 1 exactly; their rounding is not.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Estimate(share, low, high)


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], level: float = LEVEL
) -> Estimate:
    """A mean whose items come in clusters (questions of one passage), with the cluster-robust
    standard error: √(Σ_c (Σ_{i∈c} (x_i − x̄))²) / n · √(C / (C − 1)).

    Raises:
        DataError: There are no items, or as many clusters as values are not given.
    """
    return ratio(values, [1.0] * len(values), clusters, level)


def ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[Hashable],
    level: float = LEVEL,
) -> Estimate:
    """Σ numerators / Σ denominators (bits over bytes) with its interval by linearisation; items
    of one cluster move together, clusters are independent.

    With a single cluster nothing tells how much another would differ: the interval is infinite.

    Raises:
        DataError: There are no items, or the denominators sum to 0.
    """
    x, w = np.asarray(numerators, float), np.asarray(denominators, float)
    _need(len(x))
    if len(w) != len(x) or len(clusters) != len(x):
        raise DataError("items, weights and clusters are not equally many")
    if w.sum() <= 0:
        raise DataError("the items have no weight at all")
    value = float(x.sum() / w.sum())
    sums: dict[Hashable, float] = {}
    for cluster, residual in zip(clusters, x - value * w, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + float(residual)
    count = len(sums)
    if count < 2:
        return Estimate(value, -math.inf, math.inf)
    square = math.fsum(part * part for part in sums.values()) * count / (count - 1)
    half = quantile(level) * math.sqrt(square) / float(w.sum())
    return Estimate(value, value - half, value + half)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided p of two models' right answers on the same items (McNemar 1947): the items
    that only one got right fall to either like a fair coin.

    Raises:
        DataError: The lists differ in length.
    """
    _paired(len(ours), len(theirs))
    only = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    other = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    n, fewer = only + other, min(only, other)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def paired_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    weights: Sequence[float],
    level: float = LEVEL,
    seed: int = 0,
) -> Difference:
    """Σ(ours − theirs) / Σ weights with the percentile interval of the paired bootstrap: items
    are drawn again, each with both models' scores (Efron 1979; Koehn 2004).

    Args:
        weights: 1 for a mean; bytes where the scores are bits.

    Raises:
        DataError: There are no items or the lists differ in length.
    """
    _paired(len(ours), len(theirs))
    _need(len(ours))
    a, b, w = (np.asarray(each, float) for each in (ours, theirs, weights))
    difference = a - b
    value = float(difference.sum() / w.sum())
    drawn = _drawn_ratios(difference, w, seed)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all() and (w == 1).all())
    if binary:
        p = mcnemar((a == 1).tolist(), (b == 1).tolist())
    else:
        # The smaller share of draws on one side of 0, twice, with the sample itself as one draw.
        below, above = int((drawn <= 0).sum()), int((drawn >= 0).sum())
        p = min(1.0, 2 * (min(below, above) + 1) / (len(drawn) + 1))
    return Difference(value, float(low), float(high), p, len(a))


def _drawn_ratios(x: Floats, w: Floats, seed: int) -> Floats:
    draw = np.random.default_rng(seed)
    n = len(x)
    found = np.empty(DRAWS)
    step = max(1, 2_000_000 // n)
    for start in range(0, DRAWS, step):
        index = draw.integers(0, n, (min(step, DRAWS - start), n))
        found[start : start + step] = x[index].sum(1) / w[index].sum(1)
    return found


def items_to_see(
    difference: float, share: float, level: float = LEVEL, power: float = POWER
) -> int:
    """Items needed for two models, asked separate questions, to differ visibly.

    n = (z_{1−α/2} + z_power)² · 2p(1−p) / δ². Asked the same items, models that agree with
    correlation ρ need (1 − ρ) times as many.

    Args:
        difference: δ, what is to be seen: 0.03 for 3 points.
        share: p, about the share both get right. The mean of two shares δ apart lies at least δ/2
            from 0 and from 1, and is taken there where p is nearer.

    Raises:
        DataError: `difference` is not positive.
    """
    if difference <= 0:
        raise DataError("a difference to be seen must be positive")
    z = quantile(level) + NormalDist().inv_cdf(power)
    middle = min(max(share, difference / 2), 1 - difference / 2)
    return max(1, math.ceil(z * z * 2 * middle * (1 - middle) / difference**2))


def against_chance(estimate: Estimate, chance: float) -> Literal["above", "at", "below"]:
    """`above`, `at` or `below` chance, by whether the interval holds it."""
    if estimate.low > chance:
        return "above"
    return "below" if estimate.high < chance else "at"


def _need(n: int) -> None:
    if n < 1:
        raise DataError("there are no items to score")


def _paired(ours: int, theirs: int) -> None:
    if ours != theirs:
        raise DataError(f"{ours} and {theirs} items cannot be paired")
