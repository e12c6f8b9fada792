"""A run in flight: where it will end, whether its target is lost, whether it left its course.

Not for fitting laws to finished curves (`curve`), and not for stopping anything: facts are returned
and the caller decides. `watch` is a pure function of the curve so far and costs a few milliseconds.

The curve so far alone cannot say what the falls of the learning rate still to come will bring, so
the terms of the schedule (`schedule_terms`) are fitted under a belief about their parameters: that
of finished curves of smaller models (`belief_of`), or the package's own from public curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.curve import CurveLaw
from isoflop.laws.curve_fit import Belief, Curve, Optimum, Points, descend, points, scatter
from isoflop.laws.family import Estimate, check_level
from isoflop.laws.forms import Array
from isoflop.laws.kin import KinBelief, outlook
from isoflop.laws.schedule_terms import KAPPA, K, Terms, terms

FEWEST = 3
"""Points after the warm-up below which nothing is said."""
FORM_ERROR = 4.0
"""Error of the form on ln loss, in units of its misfit, for a rate that falls to 0 and a run that
has hardly begun; it shrinks with the square root of the steps left."""
DRIFT = 2.0
"""Error added, in the same units, for each e-fold of the clock still to come."""
UNSAID = 0.1
"""Share of the present loss that no fall of the rate takes a run to: a fit that says so is none."""
WIDEST = float(np.log(100.0))
"""Half an interval of ln loss beyond which it says nothing."""
LOST = 0.995
"""Probability that the target is missed from which it counts as lost."""
DEPARTED = 4.0
"""Standard deviations between the newest points and what those before them foretold."""
BETWEEN_SIZES = np.array([0.1, 0.1, 0.05, 0.25, 0.4, 0.6, 0.05])
"""How far theta moves where a model grows fourfold, as seen from 25M to 100M to 400M (Luo et al.
2025): the spread granted where a single law, or laws of unknown sizes, are all there is."""
FROM_LINE = np.array([0.016, 0.04, 0.025, 0.05, 0.25, 0.25, 0.035])
"""How far theta lies from its line in ln size, by the same curves."""
WINDOW = 0.15
"""Share of the curve so far that counts as its newest part."""


@dataclass(frozen=True)
class Watch:
    """What is known of a run's end while it is going.

    The forecasts suppose that the run keeps to its schedule and to the form; where it has
    `departed` (a shifted or rising loss, a rate other than planned) they are not to be relied on.
    """

    progress: float
    """Share of the schedule's steps that are done."""
    final: Estimate
    """The loss at the schedule's end; with the promise, if one was given, taken into account."""
    own: Estimate
    """The same from the curve alone."""
    missed: float | None
    """Probability, from the curve alone, that the run ends above the target; None without one."""
    lost: bool
    """The target cannot be reached any more: `missed` is above LOST."""
    departure: float
    """The newest part of the curve against what the earlier part foretold, in standard deviations;
    positive above."""
    departed: bool
    """The run left its course: its departure is beyond DEPARTED."""
    gain: float
    """Loss that the remaining steps still bring by progress alone: what would be given up if the
    learning rate fell now instead of at the end."""
    gain_per_step: float

    def to_dict(self) -> dict[str, Any]:
        """The facts as the command line prints them."""
        return {
            "progress": self.progress,
            "final": self.final.to_dict(),
            "own": self.own.to_dict(),
            "missed": self.missed,
            "lost": self.lost,
            "departure": self.departure,
            "departed": self.departed,
            "gain": self.gain,
            "gain_per_step": self.gain_per_step,
        }

    def reasons_to_stop(self, least_gain_per_step: float = 0.0) -> tuple[str, ...]:
        """Why going on is not worth it; empty where it is.

        Args:
            least_gain_per_step: Loss that a step has to bring to be worth its compute.
        """
        found = []
        if self.lost:
            found.append(
                f"the target cannot be reached any more: the run ends between {self.own.low:.4f} "
                f"and {self.own.high:.4f}"
            )
        if self.gain_per_step < least_gain_per_step:
            found.append(
                f"the steps left bring {self.gain_per_step:.3g} of loss each, under the bound of "
                f"{least_gain_per_step:.3g}"
            )
        return tuple(found)


def belief_of(
    laws: Sequence[CurveLaw], sizes: Sequence[float] = (), size: float | None = None
) -> KinBelief:
    """What finished curves of other sizes say of the next one's, per step of the clock.

    Each parameter is taken to follow a straight line in ln size, whose slope is believed to be
    that of BETWEEN_SIZES at most; laws count by what their own curves say of each parameter.
    Without `sizes` the line is level and each law may lie BETWEEN_SIZES off it.

    Args:
        laws: Curve laws of models trained alike: same data, batch and unit of steps.
        sizes: Their parameters, in the order of `laws`.
        size: Parameters of the run that the belief is for.

    Raises:
        TableError: There are no laws, or not as many sizes as laws, or sizes without `size`.
    """
    if not laws:
        raise TableError("there are no curve laws to learn from")
    if (size is None) != (not sizes) or len(sizes) not in (0, len(laws)):
        raise TableError(f"{len(laws)} laws need {len(laws)} sizes and the size of the run")
    far = np.zeros(len(laws)) if size is None else np.log(np.array(sizes) / size)
    off_line = FROM_LINE**2 if sizes else FROM_LINE**2 + BETWEEN_SIZES**2
    slope = (np.log(4.0) / BETWEEN_SIZES) ** 2
    # Value at the run's size (K) and slope (K), with hardly a belief about the value.
    information = np.diag(np.concatenate([np.full(K, 0.02), slope]))
    pull = np.concatenate([0.02 * np.array(_PUBLIC_CENTRE), np.zeros(K)])
    for law, x in zip(laws, far, strict=True):
        seen = np.linalg.inv(np.cov(_log(law.draws), rowvar=False) + np.diag(off_line))
        design = np.concatenate([np.eye(K), x * np.eye(K)], axis=1)
        information += design.T @ seen @ design
        pull += design.T @ (seen @ law.theta)
    covariance = np.linalg.inv(information)
    misfit = float(np.median([law.noise["run_to_run"] for law in laws]))
    own = np.asarray(np.linalg.inv(covariance[:K, :K] + np.diag(off_line)))
    kin = (tuple(laws), tuple(map(float, far))) if sizes else ((), ())
    return KinBelief((covariance @ pull)[:K], own, misfit, laws=kin[0], distance=kin[1])


def watch(
    curve: Curve,
    *,
    belief: Belief | None = None,
    promise: Estimate | None = None,
    target: float | None = None,
    level: float = 0.9,
) -> Watch:
    """What the curve so far says of the end of its schedule.

    Args:
        curve: The points so far; its schedule is that of the whole run, to the last step.
        belief: Of `belief_of`; the package's own where omitted.
        promise: The end as a law over sizes foretold it before the run.
        target: The loss that the run is to reach.

    Raises:
        TableError: Fewer than FEWEST points lie after the warm-up, the points do not determine
            an end, the target is no loss, or `level` is not between 0 and 1.
    """
    check_level(level)
    seen = curve.after_warmup()
    if len(seen.step) < FEWEST:
        raise TableError(
            f"{len(seen.step)} points after the warm-up say nothing of the end",
            where=curve.run_id,
            fix=f"Wait for {FEWEST}",
        )
    peak = seen.schedule.peak
    known = belief if belief is not None else default_belief(seen.schedule.end)
    part = points(seen, peak=peak, unit=1.0, misfit=known.misfit)
    end = terms(seen.schedule, [seen.schedule.end], peak=peak, unit=1.0)
    # The end weighs nothing in the fit, but a fit that takes it below zero is none.
    nothing = np.zeros(1)
    beyond = Points(end.step[-1:], end, nothing, np.ones(1), nothing, nothing)
    best = descend([part, beyond], known, known.centre)
    value, variance = _outlook(part, end, best, known.misfit)
    value, variance = _joined((value, variance), outlook(seen, known))
    own = _estimate(value, variance, level)
    final = own
    if promise is not None:
        width = np.log(promise.high / promise.low) / 2 / _quantile(promise.level)
        share = width**2 / (variance + width**2)
        value_both = share * value + (1.0 - share) * float(np.log(promise.value))
        final = _estimate(value_both, variance * share, level)
    missed = None
    if target is not None:
        if not (np.isfinite(target) and target > 0.0):
            raise TableError(f"the target must be a loss, not {target:g}")
        missed = NormalDist().cdf((value - float(np.log(target))) / float(np.sqrt(variance)))
    departure = _departure(seen, known, peak)
    gain = _progress(part, end, best.theta)
    left = max(seen.schedule.end - float(seen.step[-1]), 1.0)
    return Watch(
        progress=float(seen.step[-1]) / seen.schedule.end,
        final=final,
        own=own,
        missed=missed,
        lost=missed is not None and missed > LOST,
        departure=departure,
        departed=abs(departure) > DEPARTED,
        gain=gain,
        gain_per_step=gain / left,
    )


def default_belief(horizon: float) -> Belief:
    """What public curves say of a run of `horizon` steps of unknown size, data and batch.

    Centre and spread are those of the curves of 25M, 100M and 400M parameters of Luo et al. 2025
    (fits of `fit_curve` to all nine schedules of each), carried to the horizon; to these come the
    two directions in which other people's runs differ most, the scale of the loss (a factor of
    e^±0.3) and that of time (e^±1).
    """
    stretch = float(np.log(horizon / _PUBLIC_HORIZON))
    centre = np.array(_PUBLIC_CENTRE)
    alpha = float(np.exp(centre[2]))
    time = np.array([0.0, alpha, 0.0, 0.0, -1.0, 0.0, 0.0])
    loss = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    spread = np.array(_PUBLIC_SPREAD)
    covariance = np.diag(spread**2) + np.outer(time, time) + 0.3**2 * np.outer(loss, loss)
    return Belief(centre + stretch * time, np.asarray(np.linalg.inv(covariance)), _UNKNOWN_MISFIT)


_UNKNOWN_MISFIT = 3e-3
_PUBLIC_HORIZON = 40_000.0
_PUBLIC_CENTRE = (1.05, 3.65, -0.66, -2.2, -4.8, 0.5, 0.555)
_PUBLIC_SPREAD = (0.1, 0.5, 0.25, 1.2, 0.7, 0.6, 0.08)


def _outlook(part: Points, end: Terms, best: Optimum, misfit: float) -> tuple[float, float]:
    """ln of the final loss and its variance."""
    loss, jacobian = end.evaluate(best.theta)
    if loss[0] <= UNSAID * np.exp(part.log_loss[-1]):
        raise TableError(
            "the curve so far does not say where the run ends",
            fix="Wait for more of it, or give the belief of finished curves; if the loss rises, "
            "the law does not hold",
        )
    row = jacobian[0] / loss[0]
    variance = float(row @ np.linalg.solve(best.information, row))
    kappa = float(best.theta[KAPPA])
    clock = part.terms.clock(kappa)[1][0, -1]
    ahead = float(np.log(end.clock(kappa)[1][0, 0] / clock))
    deepest = 1.0 - float(end.rate[-1])
    left = 1.0 - float(part.terms.step[part.terms.left[-1]]) / float(end.step[-1])
    form = misfit * (FORM_ERROR * deepest * np.sqrt(left) + DRIFT * max(ahead, 0.0))
    return float(np.log(loss[0])), variance + form**2


def _departure(curve: Curve, known: Belief, peak: float) -> float:
    """How far the newest points lie from what those before foretold, in standard deviations."""
    cut = int(np.ceil(len(curve.step) * (1.0 - WINDOW)))
    if cut < FEWEST or len(curve.step) - cut < 1:
        return 0.0
    before = Curve(curve.run_id, curve.step[:cut], curve.loss[:cut], curve.schedule)
    part = points(before, peak=peak, unit=1.0, misfit=known.misfit)
    best = descend([part], known, known.centre)
    newest = terms(curve.schedule, curve.step[cut:], peak=peak, unit=1.0)
    loss, jacobian = newest.evaluate(best.theta)
    if not (loss > 0.0).all():
        return 0.0
    off = float(np.mean(np.log(curve.loss[cut:] / loss)))
    row = np.mean(jacobian / loss[:, None], axis=0)
    variance = float(row @ np.linalg.solve(best.information, row))
    _, form = _outlook(part, newest, best, known.misfit)
    noise = scatter(curve.loss) ** 2 / (len(curve.step) - cut)
    return off / float(np.sqrt(max(variance, form) + noise + 1e-6))


def _joined(own: tuple[float, float], other: tuple[float, float] | None) -> tuple[float, float]:
    """Two forecasts (value, variance), weighed by their precision. They rest on the same curve and
    the same laws, so together they are taken to be no surer than the surer one."""
    if other is None:
        return own
    share = other[1] / (own[1] + other[1])
    return share * own[0] + (1.0 - share) * other[0], min(own[1], other[1])


def _progress(part: Points, end: Terms, theta: Array) -> float:
    """Fall of the progress term from the newest point to the end."""
    clocks = (
        part.terms.clock(float(theta[KAPPA]))[1][0, -1],
        end.clock(float(theta[KAPPA]))[1][0, 0],
    )
    now, then = (float(np.exp(theta[1]) * c ** -np.exp(theta[2])) for c in clocks)
    return max(now - then, 0.0)


def _estimate(value: float, variance: float, level: float) -> Estimate:
    half = min(_quantile(level) * float(np.sqrt(variance)), WIDEST)
    low, middle, high = np.exp([value - half, value, value + half])
    return Estimate(float(middle), float(low), float(high), level)


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def _log(values: Array) -> Array:
    theta = np.log(np.maximum(values, 1e-300))
    theta[:, KAPPA] = values[:, KAPPA]
    return np.asarray(theta)
