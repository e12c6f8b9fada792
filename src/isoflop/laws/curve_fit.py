"""Fitting the terms of a schedule to loss curves; not for choosing beliefs nor for intervals.

The objective is, over curves c and their binned points i,

    sum_ci w_ci huber(r_ci / s_ci) + ½ (theta - m)' P (theta - m),     r = ln L - ln loss

s² = noise² + form², where the noise of a bin is seen from point to point and averages out, and the
form's own error does not: neighbours err together, so that a curve counts as at most INDEPENDENT
points for each e-fold of its steps. Hence w = s² / (noise² + form² · points / independent points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.forms import Array
from isoflop.laws.schedule_terms import Schedule, Terms, terms

BINS = 96
"""Points that a curve is averaged to."""
INDEPENDENT = 8.0
"""Points within one e-fold of a curve's steps that count as independent."""
DELTA = 1e-3
"""Error on log loss that the form is granted."""
TRANSIENT = 1.2e-2
"""Error granted where the warm-up ends at step w; it fades as (w / step)^4. The form misses curves
of 25M to 400M parameters (Luo et al. 2025) by 0.1 to 2.1 % there and by 0.3 % at 1.6 w."""
LOWER = np.array([-4.0, -12.0, np.log(0.02), -12.0, -8.0, np.log(0.05), 0.1])
UPPER = np.array([4.0, 6.0, np.log(3.0), 6.0, 16.0, np.log(20.0), 1.5])


@dataclass(frozen=True)
class Curve:
    """The losses of one run and the schedule it was made with.

    Raises:
        TableError: Steps and losses differ in length or number fewer than two, a step repeats or
            goes back, or a loss is not positive and finite.
    """

    run_id: str
    step: Array
    """(R,), increasing; in the unit of the schedule's steps."""
    loss: Array
    """(R,), nats per token."""
    schedule: Schedule

    def __post_init__(self) -> None:
        step = np.asarray(self.step, dtype=np.float64)
        loss = np.asarray(self.loss, dtype=np.float64)
        object.__setattr__(self, "step", step)
        object.__setattr__(self, "loss", loss)
        if step.ndim != 1 or step.shape != loss.shape or len(step) < 2:
            raise TableError("a curve needs a loss at each of two or more steps", where=self.run_id)
        if not (np.isfinite(step).all() and (np.diff(step) > 0).all()):
            raise TableError("the steps of a curve must increase", where=self.run_id)
        bad = ~(np.isfinite(loss) & (loss > 0.0))
        if bad.any():
            raise TableError(
                f"the loss at step {step[int(np.argmax(bad))]:g} is {loss[int(np.argmax(bad))]:g}",
                where=self.run_id,
                fix="Losses are positive, in nats per token; leave diverged parts out",
            )

    def after_warmup(self) -> Curve:
        """Without the points of the warm-up, where the law does not hold.

        Raises:
            TableError: Fewer than two points are left.
        """
        kept = (self.step >= self.schedule.risen) & (self.step > 0.0)  # nothing is learnt at 0
        if kept.sum() < 2:
            raise TableError("fewer than two points lie after the warm-up", where=self.run_id)
        return Curve(self.run_id, self.step[kept], self.loss[kept], self.schedule)


@dataclass(frozen=True)
class Belief:
    """A normal belief about theta, in units of the objective."""

    centre: Array
    """(K,)."""
    precision: Array
    """(K, K)."""
    misfit: float = DELTA
    """By how much, in ln loss, the form misses curves of this kind besides their noise."""


@dataclass(frozen=True)
class Points:
    """A curve averaged to bins, with its terms."""

    steps: Array
    """(R,)."""
    terms: Terms
    log_loss: Array
    """(R,)."""
    width: Array
    """(R,): standard deviation of a point, s of the objective."""
    weight: Array
    """(R,)."""
    noise: Array
    """(R,): the part of `width` that averages out."""


@dataclass(frozen=True)
class Optimum:
    """Where the objective is least."""

    theta: Array
    """(K,)."""
    objective: float
    information: Array
    """(K, K): second derivatives of the objective."""


def points(curve: Curve, *, peak: float, unit: float, misfit: float = DELTA) -> Points:
    """A curve made ready for the fit.

    Args:
        peak: Learning rate that others are counted in.
        unit: Steps per unit of the clock.
        misfit: Error on ln loss that the form is granted after the warm-up.
    """
    count = len(curve.step)
    starts = np.unique(np.linspace(0, count, min(count, BINS) + 1).astype(np.intp)[:-1])
    sizes = np.diff(np.concatenate([starts, [count]]))
    step = np.add.reduceat(curve.step, starts) / sizes
    log_loss = np.add.reduceat(np.log(curve.loss), starts) / sizes
    noise = scatter(curve.loss) ** 2 / sizes
    form = misfit**2 + (TRANSIENT * transient(step, curve.schedule.risen)) ** 2
    independent = max(1.0, INDEPENDENT * float(np.log(step[-1] / step[0])))
    weight = (noise + form) / (noise + form * max(1.0, len(step) / independent))
    ready = terms(curve.schedule, step, peak=peak, unit=unit)
    return Points(step, ready, log_loss, np.sqrt(noise + form), weight, np.sqrt(noise))


def transient(step: Array, risen: float) -> Array:
    """How what the form misses after a warm-up of `risen` steps fades: 1 at its end, (R,)."""
    return np.asarray((risen / step) ** 4)


def scatter(loss: Array) -> float:
    """Standard deviation of ln loss from point to point, from second differences, robustly."""
    if len(loss) < 4:
        return 0.0
    second = np.diff(np.log(loss), 2)
    return float(np.median(np.abs(second)) / 0.6745 / np.sqrt(6.0))


def descend(
    parts: Sequence[Points],
    belief: Belief,
    start: Array,
    *,
    iterations: int = 60,
) -> Optimum:
    """The optimum near `start` (K,), by re-weighted Levenberg–Marquardt steps."""
    theta = np.clip(start, LOWER, UPPER)
    value, gradient, information = _expand(parts, belief, theta)
    damping = 1e-3
    for _ in range(iterations):
        system = information + damping * np.diag(np.diag(information) + 1e-9)
        # A step in kappa may not outrun the form, which changes fast with it.
        move = np.clip(-np.linalg.solve(system, gradient), -1.0, 1.0)
        trial = np.clip(theta + move, LOWER, UPPER)
        new_value, new_gradient, new_information = _expand(parts, belief, trial)
        if new_value < value:
            small = value - new_value < 1e-7 * (1.0 + value)
            theta, value = trial, new_value
            gradient, information = new_gradient, new_information
            damping = max(damping * 0.2, 1e-9)
            if small:
                break
        else:
            damping *= 6.0
            if damping > 1e8:
                break
    return Optimum(theta, value, information)


def _expand(parts: Sequence[Points], belief: Belief, theta: Array) -> tuple[float, Array, Array]:
    """Objective, gradient (K,) and re-weighted second derivatives (K, K)."""
    off = theta - belief.centre
    pull = belief.precision @ off
    value, gradient, information = 0.5 * float(off @ pull), pull, np.array(belief.precision)
    for part in parts:
        loss, jacobian = part.terms.evaluate(theta)
        if not (loss > 0.0).all():
            return np.inf, gradient, information
        scaled = (np.log(loss) - part.log_loss) / part.width
        size = np.abs(scaled)
        inside = np.minimum(size, 1.0)
        value += float(part.weight @ (inside * (size - 0.5 * inside)))
        pulled = part.weight * np.where(size <= 1.0, 1.0, 1.0 / np.maximum(size, 1.0))
        rows = jacobian / (loss * part.width)[:, None]
        gradient = gradient + rows.T @ (pulled * scaled)
        information += (rows * pulled[:, None]).T @ rows
    return value, gradient, information


def residuals(part: Points, theta: Array) -> Array:
    """ln of the law's loss minus ln of the measured one, (R,)."""
    return np.asarray(np.log(part.terms.evaluate(theta)[0]) - part.log_loss)


def starts(parts: Sequence[Points], belief: Belief) -> list[Array]:
    """Rough optima from which to descend: a grid over the shapes, the amplitudes solved for.

    For given alpha, C, beta and kappa the loss is linear in L0, A and B, so these come from one
    least-squares solve; the three best shapes are returned.
    """
    ranked = []
    log_loss = np.concatenate([p.log_loss for p in parts])
    root = np.concatenate([np.sqrt(p.weight) / p.width for p in parts])
    base = np.array(belief.centre)
    for alpha in (0.25, 0.45, 0.7):
        for shift in (-3.0, 0.0, 3.0):
            trial = np.array(base)
            trial[[0, 1, 3]] = 0.0
            trial[2], trial[4] = np.log(alpha), base[4] + shift
            jacobian = np.concatenate([p.terms.evaluate(trial)[1] for p in parts])
            columns = jacobian[:, [0, 1, 3]] * (root / np.exp(log_loss))[:, None]
            solved, *_ = np.linalg.lstsq(columns, root, rcond=None)
            if solved[0] <= 0.0 or solved[1] <= 0.0:
                continue
            falls = bool(np.abs(columns[:, 2]).max() > 0.0) and solved[2] > 0.0
            trial[[0, 1]] = np.log(solved[:2])
            trial[3] = np.log(solved[2]) if falls else base[3]
            if not falls:
                columns[:, 2] = 0.0
            off = columns @ solved - root
            ranked.append((float(off @ off), trial))
    ranked.sort(key=lambda item: item[0])
    return [trial for _, trial in ranked[:3]] or [base]
