"""Shares within limits, and the best of them under a mixture law; not the law itself (mixture).

Shape legend: `A` mixtures, `B` laws (draws), `I` validation domains, `J` training domains, `Q` rows
of an objective.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import TableError
from isoflop.laws.forms import Array

SIMPLEX = 1e-3  # rounding that weights adding up to 1 may show
PROPOSALS = 512
STEPS = 400
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Limits:
    """How small and how large the shares of a mixture may be."""

    lower: Array
    """(J,)"""
    upper: Array
    """(J,)"""
    group: NDArray[np.bool_]
    """(J,): those whose shares are also limited together."""
    group_most: float
    """Their largest sum."""

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        *,
        most: Mapping[str, float] | None = None,
        least: Mapping[str, float] | None = None,
        together: tuple[Collection[str], float] | None = None,
    ) -> Limits:
        """The limits of domains by name; of a name without one, 0 to 1.

        Args:
            together: Names, and the largest sum of their shares.

        Raises:
            TableError: No mixture lies within them.
        """
        lower = np.array([float((least or {}).get(name, 0.0)) for name in names])
        upper = np.array([float((most or {}).get(name, 1.0)) for name in names])
        members, group_most = together or ((), 1.0)
        group = np.array([name in members for name in names])
        reach = min(upper[group].sum(), group_most) + upper[~group].sum()
        if reach < 1.0 - SIMPLEX or np.any(upper < 0.0):
            raise TableError(
                f"the limits allow {reach:.0%} of a mixture",
                where="most",
                fix="Let the largest shares add up to at least 1",
            )
        if np.any(lower > upper) or lower.sum() > 1.0 or lower[group].sum() > group_most:
            raise TableError(
                "the smallest shares leave no mixture within the largest ones", where="least"
            )
        return cls(lower, upper, group, float(group_most))

    def nearest(self, mixtures: Array) -> Array:
        """The mixtures within the limits that are nearest (in relative entropy) to positive ones
        (A, J): each share scaled alike, and cut to its limits."""
        found = _scaled(mixtures, self.lower, self.upper, 1.0)
        over = found[:, self.group].sum(axis=1) > self.group_most
        if over.any():
            for part, total in ((self.group, self.group_most), (~self.group, 1 - self.group_most)):
                rows = np.ix_(over, part)
                found[rows] = _scaled(mixtures[rows], self.lower[part], self.upper[part], total)
        return found


def _scaled(mixtures: Array, lower: Array, upper: Array, total: float) -> Array:
    """clip(c·mixture, lower, upper) with the c of each row (A, J) at which it sums to `total`.

    The sum is piecewise linear in c between the values at which a share meets a limit.
    """
    shares = np.maximum(mixtures, _SMALLEST)
    bends = np.sort(np.concatenate([lower / shares, upper / shares], axis=1), axis=1)
    sums = np.clip(bends[:, :, None] * shares[:, None, :], lower, upper).sum(axis=2)
    after = np.clip((sums < total).sum(axis=1), 1, bends.shape[1] - 1)
    rows = np.arange(len(shares))
    rise = sums[rows, after] - sums[rows, after - 1]
    part = (total - sums[rows, after - 1]) / np.where(rise > 0.0, rise, 1.0)
    first = bends[rows, after - 1]
    factor = first + np.clip(part, 0.0, 1.0) * (bends[rows, after] - first)
    return np.asarray(np.clip(factor[:, None] * shares, lower, upper))


def losses_of(floor: Array, slopes: Array, mixtures: Array) -> Array:
    """Losses (B, A, I) of floors (B, I) and slopes (B, I, J) at mixtures (A, J)."""
    rise = np.exp(np.clip(np.einsum("bij,aj->bai", slopes, mixtures), -50.0, 50.0))
    return np.asarray(floor[:, None, :] + rise)


def minimise(
    floor: Array, slopes: Array, rows: Array, offsets: Array, limits: Limits,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """The mixture (B, J) of each law with the least max over rows (Q, I) of row · L - offset.

    The best of Dirichlet proposals, then mirror descent. The objective is convex, so the descent
    ends at the one optimum; the proposals only save steps (RegMix's search, Liu et al. 2024,
    without its million of them).
    """
    count = slopes.shape[2]
    proposals = limits.nearest(rng.dirichlet(np.ones(count), size=PROPOSALS))
    worth = (losses_of(floor, slopes, proposals) @ rows.T - offsets).max(axis=2)
    at = proposals[np.argmin(worth, axis=1)]
    best, lowest = at, worth.min(axis=1)
    scale = np.abs(slopes).max()
    for step in range(STEPS):
        rise = np.exp(np.clip(np.einsum("bij,bj->bi", slopes, at), -50.0, 50.0))
        values = (floor + rise) @ rows.T - offsets
        worst = values.argmax(axis=1)
        found = values.max(axis=1)
        better = found < lowest
        best, lowest = np.where(better[:, None], at, best), np.where(better, found, lowest)
        gradient = np.einsum("bi,bij->bj", rows[worst] * rise, slopes)
        size = np.abs(gradient).max(axis=1, keepdims=True) + _SMALLEST
        pull = -gradient / size * min(1.0, 4.0 / (1.0 + scale)) * 2.0 / np.sqrt(1.0 + step)
        at = at * np.exp(pull - pull.max(axis=1, keepdims=True)) + _SMALLEST
        at = limits.nearest(at / at.sum(axis=1, keepdims=True))
    return np.asarray(best)
