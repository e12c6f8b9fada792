"""What a learning-rate schedule does to a loss curve, term by term; no fitting and no intervals.

    L(t) = L0 + A x(t)^-alpha - B sum_k d_k [1 - (1 + C (x(t) - x_k))^-beta]

x is a clock that runs with a power of the learning rate, dx = (lr / peak)^kappa dt, and d_k is the
fall of lr / peak at moment k after the peak (negative where the rate rises again). The power law
is progress; the sum is the noise that a lower rate lets the weights lose, which takes its time.
The sum of power laws over the falls is that of Luo et al. 2025 ("A Multi-Power Law for Loss Curve
Prediction Across Learning Rate Schedules", eq. 2), in which progress runs with lr itself
(kappa = 1) and a fall is forgotten at the speed lr^(1-gamma). One clock for both takes as many
parameters and foretells their curves better (benchmarks/laws_curves.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.core.errors import TableError
from isoflop.laws.forms import Array

NAMES = ("L0", "A", "alpha", "B", "C", "beta", "kappa")
K = len(NAMES)
KAPPA = NAMES.index("kappa")
NODES = 200
"""Nodes a schedule is thinned to: the terms then cost the same for every length of run."""
FALLS = 96
"""Groups of equal total fall that the falls of a schedule are gathered in."""
Kind = Literal["constant", "cosine", "linear", "wsd"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run: straight lines between nodes.

    Raises:
        TableError: Fewer than two nodes, steps that do not increase, or a rate that is negative or
            not a number.
    """

    step: Array
    """(J,), increasing; steps or tokens, the same unit wherever curves meet."""
    rate: Array
    """(J,): learning rate at those steps."""
    warmup: float = 0.0
    """Where the first node lies beyond step 0: the steps of the linear warm-up before it. The
    rate between the warm-up and the first node is taken to be that of the first node."""

    def __post_init__(self) -> None:
        step = np.asarray(self.step, dtype=np.float64)
        rate = np.asarray(self.rate, dtype=np.float64)
        object.__setattr__(self, "step", step)
        object.__setattr__(self, "rate", rate)
        if step.ndim != 1 or step.shape != rate.shape or len(step) < 2:
            raise TableError("a schedule needs a learning rate at each of two or more steps")
        if not (np.isfinite(step).all() and (np.diff(step) > 0).all() and step[0] >= 0):
            raise TableError("the steps of a schedule must increase from 0 or later")
        if not (np.isfinite(rate).all() and (rate >= 0).all() and rate.max() > 0):
            raise TableError("learning rates must be finite, not negative, and not all zero")
        if not 0.0 <= self.warmup <= step[0]:
            raise TableError(
                f"warm-up of {self.warmup:g} steps must end by the first step given, {step[0]:g}",
                fix="Give the warm-up's own learning rates instead and warmup=0",
            )

    @property
    def end(self) -> float:
        """The last step."""
        return float(self.step[-1])

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return float(self.rate.max())

    @property
    def risen(self) -> float:
        """The step at which the warm-up ends: the first within 0.1 % of the peak."""
        return self.warmup or float(self.step[_risen(self.rate)])

    @classmethod
    def named(
        cls,
        kind: Kind,
        *,
        steps: float,
        peak: float,
        warmup: float = 0.0,
        final_fraction: float = 0.0,
        decay_fraction: float = 0.2,
    ) -> Schedule:
        """A schedule by name, as the recipes have them (`decay_fraction` of `wsd` only).

        Raises:
            TableError: The name is unknown, or the decay begins before the warm-up ends.
        """
        start = (1.0 - decay_fraction) * steps if kind == "wsd" else warmup
        if kind not in ("constant", "cosine", "linear", "wsd"):
            raise TableError(f"no schedule is called {kind}", fix="constant, cosine, linear or wsd")
        if not 0.0 <= warmup <= start < steps:
            raise TableError(
                f"{steps:g} steps leave no room for a warm-up of {warmup:g} and a decay "
                f"from {start:g} on"
            )
        step = np.unique(np.concatenate([[0.0, warmup, start], np.linspace(start, steps, NODES)]))
        done = np.clip((step - start) / (steps - start), 0.0, 1.0)
        left = 0.5 * (1.0 + np.cos(np.pi * done)) if kind == "cosine" else 1.0 - done
        factor = final_fraction + (1.0 - final_fraction) * left if kind != "constant" else 1.0
        rise = np.minimum(1.0, step / warmup) if warmup else 1.0
        return cls(step, peak * factor * rise * np.ones_like(step))

    def thinned(self) -> Schedule:
        """At most about 2 · NODES nodes, densest where the rate moves; jumps keep both sides."""
        if len(self.step) <= 2 * NODES:
            return self
        moved = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(self.rate)))])
        way = self.step / self.end + moved / max(float(moved[-1]), 1e-300)
        after = np.searchsorted(way, np.linspace(way[0], way[-1], NODES))
        after = np.minimum(after, len(way) - 1)
        kept = np.unique(np.concatenate([[0, len(way) - 1], after, np.maximum(after - 1, 0)]))
        return Schedule(self.step[kept], self.rate[kept], self.warmup)


@dataclass(frozen=True)
class Terms:
    """A schedule made ready for evaluation at given steps; build with `terms`."""

    step: Array
    """(J,) of the thinned schedule."""
    rate: Array
    """(J,): lr / reference peak."""
    before: float
    """Steps held at the first node's rate before it, after the warm-up."""
    warmup: float
    unit: float
    """Steps per unit of the clock."""
    left: NDArray[np.intp]
    """(R,): the node before each step asked for."""
    share: Array
    """(R,): how far each step asked for lies towards the next node, 0 to 1."""
    fall: Array
    """(F,): fall of lr / peak of each group."""
    group: NDArray[np.intp]
    """(F,): the interval at which each group begins."""
    weight: Array
    """(J - 1,): each interval's part of its group's fall, summing to 1 in each group."""

    def clock(self, kappa: float) -> tuple[Array, Array]:
        """The clock and its derivative by kappa at the nodes, (2, J) in units, and at the steps
        asked for, (2, R)."""
        rate = self.rate
        whole = _mean_power(rate[:-1], rate[1:], kappa) * np.diff(self.step)
        held = _mean_power(rate[:1], rate[:1], kappa) * self.before
        ramp = _mean_power(np.zeros(1), rate[:1], kappa) * self.warmup
        nodes = np.concatenate([held + ramp, whole], axis=1).cumsum(axis=1) / self.unit
        begin, span = rate[self.left], rate[self.left + 1] - rate[self.left]
        gone = (self.step[self.left + 1] - self.step[self.left]) * self.share / self.unit
        part = _mean_power(begin, begin + span * self.share, kappa) * gone
        return nodes, nodes[:, self.left] + part

    def evaluate(self, theta: Array) -> tuple[Array, Array]:
        """Loss (R,) and its derivatives (R, K) by theta: logs of the parameters, kappa itself.

        A and C are per unit of the clock.
        """
        floor, big_a, alpha, big_b, big_c, beta = np.exp(theta[:KAPPA])
        nodes, (x, x_kappa) = self.clock(float(theta[KAPPA]))
        x = np.maximum(x, 1e-9)
        progress = big_a * x**-alpha
        jacobian = np.empty((len(x), K))
        jacobian[:, 0] = floor
        jacobian[:, 1] = progress
        jacobian[:, 2] = -alpha * np.log(x) * progress
        jacobian[:, KAPPA] = -alpha * progress / x * x_kappa
        if not len(self.fall):
            jacobian[:, 3:KAPPA] = 0.0
            return floor + progress, jacobian
        middle = 0.5 * (nodes[:, 1:] + nodes[:, :-1]) * self.weight
        at = np.add.reduceat(middle, self.group, axis=1)
        lag = x[:, None] - at[0]
        later = lag > 0.0
        stretch = 1.0 + big_c * np.where(later, lag, 0.0)
        left = stretch**-beta
        lost = big_b * ((1.0 - left) @ self.fall)
        # d/dlag of the bracket, times B: what moves it through the clock and through C.
        slope = np.where(later, big_b * beta * big_c * left / stretch, 0.0)
        jacobian[:, 3] = -lost
        jacobian[:, 4] = -((slope * np.where(later, lag, 0.0)) @ self.fall)
        jacobian[:, 5] = -big_b * beta * ((left * np.log(stretch)) @ self.fall)
        jacobian[:, KAPPA] -= x_kappa * (slope @ self.fall) - slope @ (self.fall * at[1])
        return floor + progress - lost, jacobian


def terms(schedule: Schedule, steps: ArrayLike, *, peak: float, unit: float) -> Terms:
    """The terms of a schedule at `steps` (R,), for rates relative to `peak`.

    Raises:
        TableError: A step lies outside the schedule.
    """
    asked = np.atleast_1d(np.asarray(steps, dtype=np.float64))
    if asked.min() < schedule.step[0] - 1e-6 or asked.max() > schedule.end * (1 + 1e-9):
        raise TableError(
            f"steps {asked.min():g} to {asked.max():g} leave the schedule, which covers "
            f"{schedule.step[0]:g} to {schedule.end:g}",
            fix="Give the learning rate of the whole run",
        )
    thin = schedule.thinned()
    rate = thin.rate / peak
    left = np.clip(np.searchsorted(thin.step, asked, side="right") - 1, 0, len(thin.step) - 2)
    share = (asked - thin.step[left]) / (thin.step[left + 1] - thin.step[left])
    fall, group, weight = _falls(rate)
    before = float(thin.step[0]) - schedule.warmup
    return Terms(
        step=thin.step,
        rate=rate,
        before=before,
        warmup=schedule.warmup,
        unit=unit,
        left=left,
        share=np.clip(share, 0.0, 1.0),
        fall=fall,
        group=group,
        weight=weight,
    )


def _risen(rate: Array) -> int:
    """The node at which the warm-up ends; a plateau may be uneven in its last digits."""
    return int(np.argmax(rate >= 0.999 * rate.max()))


def _mean_power(begin: Array, end: Array, kappa: float) -> Array:
    """Mean of rate^kappa, and of its derivative by kappa, on lines from begin to end; (2, J)."""
    low, high = np.maximum(begin, 1e-12), np.maximum(end, 1e-12)
    log_low, log_high = np.log(low), np.log(high)
    at_low, at_high = low**kappa, high**kappa
    gap, power = high - low, kappa + 1.0
    flat = np.abs(gap) < 0.05 * (low + high)
    gap = np.where(flat, 1.0, gap)
    mean = (at_high * high - at_low * low) / (power * gap)
    slope = (at_high * high * log_high - at_low * low * log_low) / (power * gap) - mean / power
    # The quotient loses its digits on a flat line, where Simpson's rule is exact enough.
    middle = 0.5 * (low + high)
    log_middle = np.log(middle)
    at_middle = middle**kappa
    simpson = (at_low + 4.0 * at_middle + at_high) / 6.0
    by = (at_low * log_low + 4.0 * at_middle * log_middle + at_high * log_high) / 6.0
    return np.stack([np.where(flat, simpson, mean), np.where(flat, by, slope)])


def _falls(rate: Array) -> tuple[Array, NDArray[np.intp], Array]:
    """The falls after the peak, gathered in groups of about equal total movement."""
    drop = -np.diff(rate)
    # The rise of the warm-up is no noise lost: before the peak nothing counts.
    drop[: _risen(rate)] = 0.0
    moved = np.cumsum(np.abs(drop))
    if not len(drop) or moved[-1] < 1e-9:
        return np.zeros(0), np.zeros(0, dtype=np.intp), np.zeros(len(drop))
    label = np.minimum((moved - 0.5 * np.abs(drop)) / moved[-1] * FALLS, FALLS - 1).astype(np.intp)
    # Falls and rises stay apart: their middle would be a moment at which nothing happened.
    turn = np.concatenate([[0], np.cumsum(np.diff(np.sign(drop)) != 0)])
    change = (np.diff(label) != 0) | (np.diff(turn) != 0)
    start = np.concatenate([[0], np.flatnonzero(change) + 1])
    total = np.add.reduceat(drop, start)
    sizes = np.diff(np.concatenate([start, [len(drop)]]))
    spread = np.repeat(total, sizes)
    weight = np.where(spread != 0.0, drop / np.where(spread != 0.0, spread, 1.0), 0.0)
    return total, start.astype(np.intp), weight
