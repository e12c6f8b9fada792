"""How a score goes with scale: rising, inverse or U-shaped, the gain of one way of asking over
another, and BIG-bench's two numbers. Not for thresholds (`emergence`) nor for forecasts (`tasks`).

A direction is a logistic regression of right answers on the logarithm of scale, with the scatter of
seeds. A turn is the test of Sasabuchi (1980) and Lind & Mehlum (2010): in a quadratic the slope
differs in sign at the two ends, both beyond chance; and the scores themselves have it too, the
extreme rung lying apart from both ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.forms import Array
from isoflop.laws.scores import TaskScores, seed_scatter

Name = Literal["rising", "inverse scaling", "U-shaped", "inverted U", "flat"]
FEWEST_RUNGS = 4
_STEPS = 50


@dataclass(frozen=True)
class Trend:
    """The direction of a task over scale."""

    name: Name
    p: float
    """Of the test that decided: how often chance alone gives as much."""


@dataclass(frozen=True)
class BigBench:
    """The two numbers of Srivastava et al. 2022 (appendix B), for comparison with theirs alone:
    both grow with the number of rungs, and noise makes breakthroughs."""

    linearity: float
    """I / √(mean of squared differences of neighbouring rungs), I the signed range."""
    breakthroughness: float | None
    """I / √(median of the same); None where half of the neighbours are equal."""


@dataclass(frozen=True)
class Gain:
    """One way of asking less another, over scale: step by step less directly."""

    scale: tuple[float, ...]
    gain: tuple[float, ...]
    """Difference of the shares right, of each rung."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: float
    trend: Literal["grows", "shrinks", "steady"]
    p: float
    """Of no change of the gain (in log odds) with scale."""
    pays_from: float | None
    """Smallest scale from which on every rung's interval lies above no gain; None without one."""

    def to_dict(self) -> dict[str, Any]:
        """As the command line prints it."""
        return asdict(self)


def trend_of(task: TaskScores, alpha: float = 0.01) -> Trend | None:
    """The name of a task's direction; None with fewer than four rungs.

    Args:
        alpha: Probability of a name other than `flat` where nothing changes.
    """
    if task.rungs < FEWEST_RUNGS:
        return None
    right, asked = task.right.sum(axis=1), task.asked.sum(axis=1)
    x = _centred(task.places())
    scatter = seed_scatter(task)
    turn = _turn(x, right, asked, scatter, alpha)
    if turn is not None:
        return turn
    theta, covariance = _logistic(np.stack([np.ones_like(x), x], axis=1), right, asked)
    z = theta[1] / math.sqrt(covariance[1, 1] * scatter)
    p = 2 * NormalDist().cdf(-abs(z))
    if p >= alpha:
        return Trend("flat", p)
    return Trend("rising" if z > 0 else "inverse scaling", p)


def _turn(x: Array, right: Array, asked: Array, scatter: float, alpha: float) -> Trend | None:
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    theta, covariance = _logistic(design, right, asked)
    slopes = []
    for end in (x[0], x[-1]):
        at = np.array([0.0, 1.0, 2 * end])
        slopes.append(float(at @ theta / math.sqrt(at @ covariance @ at * scatter)))
    if slopes[0] * slopes[1] >= 0:
        return None
    p = NormalDist().cdf(-min(abs(slopes[0]), abs(slopes[1])))
    shares = right / asked
    valley = slopes[0] < 0
    extreme = int(shares.argmin() if valley else shares.argmax())
    # The extreme was chosen among all rungs: its distance from the ends is tested as such.
    bound = NormalDist().inv_cdf(1 - alpha / (2 * len(x)))
    apart = all(abs(_distance(extreme, end, right, asked, scatter)) > bound for end in (0, -1))
    if p >= alpha / 2 or not apart:
        return None
    return Trend("U-shaped" if valley else "inverted U", p)


def _distance(a: int, b: int, right: Array, asked: Array, scatter: float) -> float:
    """Standard errors between two rungs (pooled)."""
    share = (right[a] + right[b]) / (asked[a] + asked[b])
    variance = share * (1 - share) * (1 / asked[a] + 1 / asked[b]) * scatter
    return float((right[a] / asked[a] - right[b] / asked[b]) / math.sqrt(max(variance, 1e-12)))


def big_bench(shares: Sequence[float]) -> BigBench | None:
    """Linearity and breakthroughness; None with fewer than three rungs or none that differ."""
    y = np.asarray(shares, dtype=np.float64)
    if len(y) < 3 or np.ptp(y) == 0.0:
        return None
    signed = float(np.sign(int(y.argmax()) - int(y.argmin())) * np.ptp(y))
    squares = np.diff(y) ** 2
    median = float(np.median(squares))
    return BigBench(
        linearity=signed / math.sqrt(float(squares.mean())),
        breakthroughness=signed / math.sqrt(median) if median > 0 else None,
    )


def second_differences(shares: Sequence[float]) -> tuple[float, ...]:
    """y₍ᵢ₊₁₎ − 2 yᵢ + y₍ᵢ₋₁₎ of the inner rungs: to be looked at, not a test."""
    return tuple(np.diff(np.asarray(shares, dtype=np.float64), 2).tolist())


def gain_over_scale(stepped: TaskScores, direct: TaskScores, level: float = 0.9) -> Gain:
    """The gain of one way of asking over another at the rungs both have.

    Intervals are Newcombe's (1998, method 10) from Wilson's, widened by the seeds' scatter. The
    trend is the interaction of way and log scale in a logistic regression.

    Raises:
        TableError: The two have fewer than two rungs in common.
    """
    common, ours, theirs = np.intersect1d(stepped.scale, direct.scale, return_indices=True)
    if len(common) < 2:
        raise TableError(
            f"{stepped.name} and {direct.name} have {len(common)} rungs in common",
            fix="Score both on the same models",
        )
    scatter = max(seed_scatter(stepped), seed_scatter(direct))
    a, n = stepped.right.sum(axis=1)[ours], stepped.asked.sum(axis=1)[ours]
    b, m = direct.right.sum(axis=1)[theirs], direct.asked.sum(axis=1)[theirs]
    low, high = _newcombe(a, n, b, m, level, scatter)
    x = _centred(np.log(common))
    design = np.concatenate(
        [
            np.stack([np.ones_like(x), x, way, way * x], axis=1)
            for way in (np.ones_like(x), np.zeros_like(x))
        ]
    )
    theta, covariance = _logistic(design, np.concatenate([a, b]), np.concatenate([n, m]))
    z = theta[3] / math.sqrt(covariance[3, 3] * scatter)
    p = 2 * NormalDist().cdf(-abs(z))
    pays = [bool((low[i:] > 0).all()) for i in range(len(common))]
    return Gain(
        scale=tuple(common.tolist()),
        gain=tuple((a / n - b / m).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        level=level,
        trend="steady" if p >= 1 - level else ("grows" if z > 0 else "shrinks"),
        p=p,
        pays_from=float(common[pays.index(True)]) if any(pays) else None,
    )


def _newcombe(
    a: Array, n: Array, b: Array, m: Array, level: float, scatter: float
) -> tuple[Array, Array]:
    z = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(scatter)
    ends = []
    for right, asked in ((a, n), (b, m)):
        share = right / asked
        middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
        half = np.sqrt(share * (1 - share) / asked + z * z / (4 * asked**2))
        half *= z / (1 + z * z / asked)
        ends.append((share, middle - half, middle + half))
    (p, p_low, p_high), (q, q_low, q_high) = ends
    gain = p - q
    low = gain - np.sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    high = gain + np.sqrt((p_high - p) ** 2 + (q - q_low) ** 2)
    return np.asarray(low), np.asarray(high)


def _centred(x: Array) -> Array:
    """x between −1 and 1."""
    return np.asarray((x - (x[0] + x[-1]) / 2) / max((x[-1] - x[0]) / 2, 1e-300))


def _logistic(design: Array, right: Array, asked: Array) -> tuple[Array, Array]:
    """Coefficients (K,) of the log odds and their covariance (K, K), by Newton's method with a
    weak pull towards 0, so that shares of 0 and 1 have an answer."""
    theta = np.zeros(design.shape[1])
    pull = 1e-2 * np.eye(design.shape[1])
    information = pull
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -30, 30)))
        information = design.T @ ((asked * p * (1 - p))[:, None] * design) + pull
        step = np.linalg.solve(information, design.T @ (right - asked * p) - pull @ theta)
        theta = theta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-9:
            break
    return theta, np.asarray(np.linalg.inv(information))
