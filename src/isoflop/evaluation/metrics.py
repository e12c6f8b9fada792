"""Scores of sampled answers: pass@k and maj@k over all subsets; not for overlap with a reference
(`overlap.py`) nor for intervals (`statistics.py`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction

from isoflop.core.errors import DataError


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of k samples, drawn from n without replacement, is right:
    1 − C(n − c, k) / C(n, k), the unbiased estimate of Chen et al. 2021 (equation 1).

    Raises:
        DataError: k is not between 1 and n, or `correct` not between 0 and n.
    """
    _check(n, k)
    if not 0 <= correct <= n:
        raise DataError(f"{correct} of {n} samples cannot be correct")
    return float(1 - Fraction(math.comb(n - correct, k), math.comb(n, k)))


def majority_at_k(answers: Sequence[Hashable | None], gold: Hashable, k: int) -> float:
    """The chance that the most frequent of k answers, drawn from all without replacement, is
    right (self-consistency, Wang et al. 2023), exactly, over all subsets and not the first k.

    Answers that tie share the vote equally; None (no answer found) never votes. Subsets without
    a single answer count as wrong.

    Raises:
        DataError: k is not between 1 and the number of answers.
    """
    _check(len(answers), k)
    votes = Counter(answer for answer in answers if answer is not None)
    right = votes.pop(gold, 0)
    silent = len(answers) - right - sum(votes.values())
    total = Fraction(0)
    for mine in range(1, min(right, k) + 1):
        for ties, ways in _ways(list(votes.values()), silent, k - mine, mine).items():
            total += Fraction(math.comb(right, mine) * ways, ties + 1)
    return float(total / math.comb(len(answers), k))


def _ways(rivals: list[int], silent: int, size: int, most: int) -> dict[int, int]:
    """Ways to choose `size` answers so that no rival has more than `most`, by how many of them
    have exactly `most`."""
    # (answers chosen, rivals that tie) → ways, one rival after another.
    ways: dict[tuple[int, int], int] = {
        (quiet, 0): math.comb(silent, quiet) for quiet in range(min(silent, size) + 1)
    }
    for votes in rivals:
        longer: dict[tuple[int, int], int] = {}
        for (chosen, ties), count in ways.items():
            for taken in range(min(votes, most, size - chosen) + 1):
                key = (chosen + taken, ties + (taken == most))
                longer[key] = longer.get(key, 0) + count * math.comb(votes, taken)
        ways = longer
    return {ties: count for (chosen, ties), count in ways.items() if chosen == size}


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise DataError(f"k = {k} must be between 1 and the {n} samples")
