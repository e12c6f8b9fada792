"""Where a run that climbs will end, told from its beginning; not before it (`forecast.py`).

Both laws are of the literature: rewards rise as a sigmoid in the logarithm of the rounds, and what
a proxy's reward was to stand for bends down as the policy leaves the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
_MIDPOINTS, _SLOPES, _TOPS = 60, 20, 8
_STEEPEST, _FLATTEST = 6.0, 0.4
"""Slopes of the sigmoid in log(round) that are held possible."""
_LATEST = 10.0
"""The latest midpoint that is, in lengths of the run."""
_LOWEST_TOP = 0.75
"""The lowest top that is, as a share of the way between the anchors."""
_OFF = 0.05
"""How far a run strays from a sigmoid, as a share of that way; of runs on sums."""


@dataclass(frozen=True)
class Told:
    """A value with the interval that holds it at a level."""

    value: float
    low: float
    high: float


def end_of_climb(
    rounds: Numbers,
    rewards: Numbers,
    errors: Numbers,
    anchors: tuple[float, float],
    total: int,
    level: float = 0.9,
) -> Told:
    """Mean reward of the last tenth of a run, from its first rounds.

    All sigmoids in log(round) between the anchors weigh by how well they fit, from a flat prior
    over their midpoint, slope and top (the form of Khatri et al. 2025).

    Args:
        rounds: Numbers of the rounds seen, from 1.
        rewards: Their mean rewards, with standard errors `errors`.
        anchors: Reward of the reference (pass@1), and of the best of a group (pass@k).
        total: Rounds of the whole run.

    Raises:
        ValueError: No round was seen.
    """
    if not len(rounds):
        raise ValueError("a climb cannot be told from no rounds")
    low, width = anchors[0], max(anchors[1] - anchors[0], 1e-9)
    middle_P1, slope_P1, top_P1 = (
        axis.reshape(-1, 1)
        for axis in np.meshgrid(
            np.linspace(0.0, np.log(_LATEST * total), _MIDPOINTS),
            np.geomspace(_FLATTEST, _STEEPEST, _SLOPES),
            np.linspace(_LOWEST_TOP, 1.0, _TOPS),
        )
    )

    def curves(at_N: Numbers) -> Numbers:
        risen_PN: Numbers = 1 / (1 + np.exp(-slope_P1 * (np.log(at_N) - middle_P1)))
        return low + top_P1 * width * risen_PN

    off = _OFF * width
    gap_PN = (curves(rounds) - rewards) / np.hypot(errors, off)
    fit_P = -0.5 * (gap_PN**2).sum(1)
    weight = np.exp(fit_P - fit_P.max())
    end = curves(np.arange(max(1, round(0.9 * total)), total + 1.0)).mean(1)
    order = np.argsort(end)
    share = np.cumsum(weight[order]) / weight.sum()
    tail = (1 - level) / 2
    value, under, over = (float(np.interp(q, share, end[order])) for q in (0.5, tail, 1 - tail))
    # The run strays from its sigmoid at its end as well.
    return Told(value, under - 1.645 * off, over + 1.645 * off)


@dataclass(frozen=True)
class Bend:
    """R(d) = R₀ + d·(α − β·log d) with d = √KL (Gao, Schulman & Hilton 2023, equation of RL)."""

    start: float
    alpha: float
    beta: float
    error: float
    """Standard deviation of what was seen about the curve."""

    def at(self, divergence: float) -> float:
        """The true reward at a KL in nats."""
        d = divergence**0.5
        return self.start + d * (self.alpha - self.beta * np.log(d)) if d > 0 else self.start

    @property
    def peak(self) -> float | None:
        """KL at which the true reward is highest; None where the curve does not bend down."""
        if self.beta <= 0:
            return None
        return float(np.exp(2 * (self.alpha / self.beta - 1)))


def bend_of(divergences: Numbers, true_rewards: Numbers, start: float) -> Bend:
    """Fit over-optimisation by least squares; it is linear in α and β.

    Args:
        divergences: KL of the policy from the reference, nats an answer.
        true_rewards: What a checker says of the same answers.
        start: What it says of the reference's.

    Raises:
        ValueError: Fewer than three of them lie away from the reference.
    """
    away = divergences > 0
    if np.count_nonzero(away) < 3:
        raise ValueError("a bend needs three points away from the reference")
    d, gain = np.sqrt(divergences[away]), true_rewards[away] - start
    design = np.stack((d, -d * np.log(d)), axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(design, gain, rcond=None)
    error = float(np.std(gain - design @ np.array([alpha, beta]), ddof=2)) if len(d) > 2 else 0.0
    return Bend(start, float(alpha), float(beta), error)
