"""Curves of scores over scale, smooth ones and ones with a step, fitted by likelihood in batches.

Not for verdicts (`emergence`), nor for losses over size and data (`fit`).

Scores are counts of right answers per rung; x is the rung's place on the log axis, scaled so that
neighbouring rungs lie 1 apart on average. A curve is

    p(x) = lo + (hi − lo) · G(a + b·x + d·[x ≥ x0])

with G logistic, or Gompertz's exp(−exp(−u)), which is what an exact match of many tokens does when
its loss falls as a power of scale. Smooth means d = 0 and no more than about a third of the rise
between neighbouring rungs: STEEPEST bounds b.

Shape suffixes: B tables (the data and its simulations), K curves, R rungs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.laws.forms import Array

STEEPEST = {"logistic": 1.4, "gompertz": 0.95}
"""Largest slope of a smooth curve per rung: σ(0.7) − σ(−0.7) = 0.34, and 0.95/e = 0.35."""
_ITERATIONS = 30
_WIDEST = 12.0
"""|a + b·x| beyond which a share is 0 or 1 to all that counts can tell."""


@dataclass(frozen=True)
class Curves:
    """K curves to be fitted: which link, which ends, where the step is."""

    gompertz: NDArray[np.bool_]
    """(K,)"""
    low: Array
    """(K,): the share at the bottom."""
    high: Array
    """(K,): the share at the top."""
    step: NDArray[np.int64]
    """(K,): the first rung above the step; 0 for none."""

    def __len__(self) -> int:
        return len(self.step)


def curves_of(shares: Array, rungs: int, steps: bool, chance: float = 0.0) -> Curves:
    """The curves that are tried: both links, a few bottoms and tops around what is seen.

    Args:
        shares: (R,) shares of right answers.
        steps: With a step between any two rungs, or without any.
        chance: Share of right answers by guessing.
    """
    least, most = float(np.min(shares)), float(np.max(shares))
    lows = sorted({0.0, min(chance, least), 0.5 * least, 0.95 * least})
    highs = sorted({1.0, 0.5 * (1.0 + most), min(1.0, 1.05 * most + 0.01)})
    places = range(1, rungs) if steps else range(1)
    found = [
        (link, low, high, place)
        for link in (False, True)
        for low in lows
        for high in highs
        for place in places
        if high > low
    ]
    link, low, high, place = zip(*found, strict=True)
    return Curves(np.array(link), np.array(low), np.array(high), np.array(place))


@dataclass(frozen=True)
class Fits:
    """The best of the curves for each table."""

    loglik: Array
    """(B, K) binomial log-likelihoods, constants left out."""
    shares: Array
    """(B, R): the best curve's shares."""
    best: NDArray[np.int64]
    """(B,): which curve."""

    @property
    def best_loglik(self) -> Array:
        """(B,)"""
        return np.asarray(self.loglik.max(axis=1))


def fit_curves(right: Array, asked: Array, x: Array, curves: Curves) -> Fits:
    """Fit all curves to all tables by Fisher scoring, slopes kept within STEEPEST.

    Args:
        right: (B, R) right answers, not necessarily whole numbers.
        asked: (R,) questions of each rung.
        x: (R,) places of the rungs.
    """
    y = right[:, None] / asked  # (B, 1, R)
    stepped = np.where(
        (curves.step > 0)[:, None], np.arange(len(x)) >= curves.step[:, None], 0.0
    )  # (K, R)
    bound = np.where(curves.gompertz, STEEPEST["gompertz"], STEEPEST["logistic"])
    tables = len(right)
    low, span = curves.low[:, None], (curves.high - curves.low)[:, None]
    start = np.clip((y.mean(axis=2) - curves.low) / (curves.high - curves.low), 0.02, 0.98)
    theta = np.zeros((tables, len(curves), 3))
    theta[:, :, 0] = np.where(curves.gompertz, -np.log(-np.log(start)), np.log(start / (1 - start)))
    theta[:, :, 0] -= 0.2 * x.mean()
    theta[:, :, 1] = 0.2
    design = np.stack(
        [np.ones_like(stepped), np.broadcast_to(x, stepped.shape), stepped], axis=2
    )  # (K, R, 3)
    ridge = np.diag([1e-6, 1e-6, 1e-3])
    for _ in range(_ITERATIONS):
        share, slope = _link(np.einsum("bkp,krp->bkr", theta, design), curves.gompertz)
        p = np.clip(low + span * share, 1e-6, 1 - 1e-6)
        slope = span * slope
        weight = asked / (p * (1 - p))
        pull = np.einsum("bkr,krp->bkp", weight * slope * (y - p), design) - theta @ ridge
        info = np.einsum("bkr,krp,krq->bkpq", weight * slope**2, design, design) + ridge
        info += 1e-9 * np.eye(3) * np.trace(info, axis1=2, axis2=3)[:, :, None, None]
        move = np.linalg.solve(info, pull[..., None])[..., 0]
        theta = theta + np.clip(move, -2.0, 2.0)
        over = np.abs(theta[:, :, 1]) > bound
        if over.any():
            # Hold the slope at its bound and turn the line about the middle of what is fitted.
            excess = theta[:, :, 1] - np.clip(theta[:, :, 1], -bound, bound)
            centre = np.einsum("bkr,r->bk", weight * slope**2, x) / np.maximum(
                (weight * slope**2).sum(axis=2), 1e-12
            )
            theta[:, :, 0] += np.where(over, excess * centre, 0.0)
            theta[:, :, 1] -= np.where(over, excess, 0.0)
    share, _ = _link(np.einsum("bkp,krp->bkr", theta, design), curves.gompertz)
    p = np.clip(low + span * share, 1e-6, 1 - 1e-6)
    loglik = (asked * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum(axis=2)
    best = loglik.argmax(axis=1)
    return Fits(loglik, p[np.arange(tables), best], best)


def _link(u: Array, gompertz: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Shares (B, K, R) of predictors and their derivatives."""
    u = np.clip(u, -_WIDEST, _WIDEST)
    falling = np.exp(-u)
    logistic = 1 / (1 + falling)
    inner = np.exp(-np.minimum(falling, 700.0))
    choose = gompertz[:, None]
    share = np.where(choose, inner, logistic)
    return share, np.where(choose, inner * falling, logistic * (1 - logistic))
