"""Curves of scores over scale, smooth ones and ones with a step, fitted by likelihood in batches.

Not for verdicts (`emergence`), nor for losses over size and data (`fit`).

Scores are counts of right answers per rung; x is the rung's place on the log axis, scaled so that
neighbouring rungs lie 1 apart on average. A curve is

    p(x) = lo + (hi − lo) · G(a + b·x + d·[x ≥ x0])

with G logistic; or Gompertz's exp(−exp(−u)), which is what an exact match of many tokens does when
its loss falls as a power of scale; or 1 − exp(−u), an error that falls as a power of scale.
Smooth means d = 0 and no more than about a third of the rise between neighbouring rungs: STEEPEST
bounds b.

Shape suffixes: B tables (the data and its simulations), K curves, R rungs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.laws.forms import Array

LINKS = ("logistic", "gompertz", "power")
STEEPEST = np.array([1.4, 0.95, 0.45])
"""Largest slope of a smooth curve per rung, by link: σ(0.7) − σ(−0.7) = 0.34, 0.95/e = 0.35, and
1 − exp(−0.45) = 0.36."""
_ITERATIONS = 20
_WIDEST = 12.0
"""|a + b·x| beyond which a share is 0 or 1 to all that counts can tell."""


@dataclass(frozen=True)
class Curves:
    """K curves to be fitted: which link, which ends, where the step is."""

    link: NDArray[np.int64]
    """(K,): which of LINKS."""
    low: Array
    """(K,): the share at the bottom."""
    high: Array
    """(K,): the share at the top."""
    step: NDArray[np.int64]
    """(K,): the first rung above the step; 0 for none."""

    def __len__(self) -> int:
        return len(self.step)

    def only(self, kept: NDArray[np.bool_]) -> Curves:
        """Some of the curves."""
        return Curves(self.link[kept], self.low[kept], self.high[kept], self.step[kept])

    def like(self, other: Curves) -> NDArray[np.bool_]:
        """(K,): whether a curve of `other` has the same link and ends."""
        ends = {tuple(e) for e in np.stack([other.link, other.low, other.high], axis=1).tolist()}
        own = np.stack([self.link, self.low, self.high], axis=1).tolist()
        return np.array([tuple(e) in ends for e in own])


def curves_of(shares: Array, rungs: int, steps: bool, chance: float = 0.0) -> Curves:
    """The curves that are tried: all links, a few bottoms and tops around what is seen.

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
        for link in range(len(LINKS))
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
    y = right / asked
    design = _design(x, curves)
    # (K, R, 9): products of the columns, so that the information is one product of matrices.
    squares = (design[:, :, :, None] * design[:, :, None, :]).reshape(len(curves), len(x), 9)
    bound = STEEPEST[curves.link][:, None]
    low, span = curves.low[:, None, None], (curves.high - curves.low)[:, None, None]
    theta = _start(y, x, curves)
    ridge = np.array([1e-6, 1e-6, 1e-3])
    for _ in range(_ITERATIONS):
        share, slope = _link(theta @ design.transpose(0, 2, 1), curves.link)
        p = np.clip(low + span * share, 1e-6, 1 - 1e-6)
        weighted = asked / (p * (1 - p)) * span * slope
        gain = weighted * span * slope
        pull = (weighted * (y - p)) @ design - theta * ridge
        info = (gain @ squares).reshape(*theta.shape, 3) + np.diag(ridge)
        theta = theta + np.clip(_solve(info, pull), -2.0, 2.0)
        excess = theta[:, :, 1] - np.clip(theta[:, :, 1], -bound, bound)
        if np.any(excess):
            # Hold the slope at its bound and turn the line about the middle of what is fitted.
            centre = (gain @ x) / np.maximum(gain.sum(axis=2), 1e-12)
            theta[:, :, 0] += excess * centre
            theta[:, :, 1] -= excess
    share, _ = _link(theta @ design.transpose(0, 2, 1), curves.link)
    p = np.clip(low + span * share, 1e-6, 1 - 1e-6)
    loglik = (asked * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum(axis=2).T
    best = loglik.argmax(axis=1)
    return Fits(loglik, p[best, np.arange(len(right))], best)


def _design(x: Array, curves: Curves) -> Array:
    """(K, R, 3): one, the place, whether above the step."""
    rungs = np.arange(len(x))
    above = ((curves.step > 0)[:, None] & (rungs >= curves.step[:, None])).astype(np.float64)
    return np.stack([np.ones_like(above), np.broadcast_to(x, above.shape), above], axis=2)


def _start(y: Array, x: Array, curves: Curves) -> Array:
    """(K, B, 3): a gentle slope through the mean share."""
    span = (curves.high - curves.low)[:, None]
    middle = np.clip((y.mean(axis=1) - curves.low[:, None]) / span, 0.02, 0.98)
    levels = [np.log(middle / (1 - middle)), -np.log(-np.log(middle)), -np.log(1 - middle)]
    level = np.choose(curves.link[:, None], levels)
    return np.stack(
        [level - 0.2 * x.mean(), np.full_like(level, 0.2), np.zeros_like(level)], axis=2
    )


def _solve(a: Array, b: Array) -> Array:
    """Solutions (..., 3) of symmetric positive systems (..., 3, 3), by cofactors: a library's
    solver takes them one by one."""
    c00 = a[..., 1, 1] * a[..., 2, 2] - a[..., 1, 2] ** 2
    c01 = a[..., 0, 2] * a[..., 1, 2] - a[..., 0, 1] * a[..., 2, 2]
    c02 = a[..., 0, 1] * a[..., 1, 2] - a[..., 0, 2] * a[..., 1, 1]
    c11 = a[..., 0, 0] * a[..., 2, 2] - a[..., 0, 2] ** 2
    c12 = a[..., 0, 1] * a[..., 0, 2] - a[..., 0, 0] * a[..., 1, 2]
    c22 = a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] ** 2
    whole = a[..., 0, 0] * c00 + a[..., 0, 1] * c01 + a[..., 0, 2] * c02
    first = c00 * b[..., 0] + c01 * b[..., 1] + c02 * b[..., 2]
    second = c01 * b[..., 0] + c11 * b[..., 1] + c12 * b[..., 2]
    third = c02 * b[..., 0] + c12 * b[..., 1] + c22 * b[..., 2]
    return np.stack([first, second, third], axis=-1) / np.maximum(whole, 1e-300)[..., None]


def _link(u: Array, link: NDArray[np.int64]) -> tuple[Array, Array]:
    """Shares (K, B, R) of predictors and their derivatives."""
    u = np.clip(u, -_WIDEST, _WIDEST)
    share, slope = np.empty_like(u), np.empty_like(u)
    for number in range(len(LINKS)):
        mine = link == number
        if not mine.any():
            continue
        falling = np.exp(-u[mine])
        if number == 0:
            share[mine] = 1 / (1 + falling)
            slope[mine] = share[mine] * (1 - share[mine])
        elif number == 1:
            share[mine] = np.exp(-np.minimum(falling, 700.0))
            slope[mine] = share[mine] * falling
        else:
            left = np.minimum(falling, 1 - 1e-4)
            share[mine], slope[mine] = 1 - left, left
    return share, slope
