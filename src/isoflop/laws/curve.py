"""The form `curve`: a loss curve from its learning-rate schedule; not for other sizes or data.

Fitted to a few curves of one model, it foretells the curve and the end of a run under another
schedule or a longer horizon. For the formula and its source see `schedule_terms`; for a run that
is still going, `in_flight`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.errors import TableError
from isoflop.laws.curve_fit import (
    DELTA,
    LOWER,
    UPPER,
    Belief,
    Curve,
    Optimum,
    Points,
    descend,
    points,
    residuals,
    starts,
    transient,
)
from isoflop.laws.family import Estimate, Family, check_level, named, spread
from isoflop.laws.forms import Array
from isoflop.laws.schedule_terms import KAPPA, NAMES, Schedule, terms

FORM = "curve"
FORMULA = (
    "L(t) = L0 + A*x^-alpha - B*sum_k d_k*(1 - (1 + C*(x - x_k))^-beta), "
    "dx = (lr/peak)^kappa dt, d_k = fall of lr/peak at k"
)
DRAWS = 400
FORM_ERROR = 2.5e-3
"""Error of the form on ln loss under a schedule it was not fitted to, within the horizon."""
DRIFT = 2e-3
"""What is added for each e-fold of the clock beyond the longest curve."""
MISFIT = 1e-2
"""Root mean square of ln residuals beyond which the form does not describe the curves."""
LEAST_FALL = 0.05
"""Fall of the learning rate, as a share of its peak, from which a curve shows its effect."""
SAME_SHAPE = 0.02


@dataclass(frozen=True)
class CurveForecast:
    """A loss curve that has not been measured."""

    step: Array
    """(R,)."""
    loss: Array
    """(R,), nats per token."""
    low: Array
    high: Array
    """(R,) each: where the curve lies with probability `level` at any one step."""
    level: float
    extrapolation: dict[str, float]
    """`steps` (of the clock) and `learning_rate`: times beyond the fitted curves; 1 among them."""

    def to_dict(self) -> dict[str, Any]:
        """The forecast as the command line prints it."""
        return {
            "step": self.step.tolist(),
            "loss": self.loss.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "level": self.level,
            "extrapolation": dict(self.extrapolation),
        }


@dataclass(frozen=True)
class CurveLaw(Family):
    """A curve law fitted by `fit_curve`, or read from `law.json`.

    `domain` holds `steps`, the clock's reach in steps at the peak, and `learning_rate`, whose upper
    end is the peak that rates are counted in.
    """

    NEEDS = ("run_to_run", "form_error", "drift")

    @property
    def theta(self) -> Array:
        """(K,): the parameters as the terms take them, A and C per step of the clock."""
        return np.asarray(_theta(self.values())[0])

    @property
    def covariance(self) -> Array:
        """(K, K): of theta, over the draws."""
        return np.cov(_theta(self.draws), rowvar=False)

    def predict(
        self, schedule: Schedule, steps: ArrayLike | None = None, level: float = 0.9
    ) -> CurveForecast:
        """The loss at `steps` (R,) under a schedule; at the schedule's own nodes when omitted.

        Raises:
            TableError: A step lies outside the schedule or before its peak's warm-up has begun,
                or `level` is not between 0 and 1.
        """
        check_level(level)
        if steps is None:
            thin = schedule.thinned()
            asked = thin.step[(thin.step >= schedule.risen) & (thin.step > 0.0)]
        else:
            asked = np.atleast_1d(np.asarray(steps, dtype=np.float64))
        peak = self.domain["learning_rate"][1]
        ready = terms(schedule, asked, peak=peak, unit=1.0)
        theta = self.theta
        loss, jacobian = ready.evaluate(theta)
        if not (loss > 0.0).all():
            raise TableError(
                "the law gives a loss below zero under this schedule",
                fix="It lies too far from the fitted ones; fit curves that come closer to it",
            )
        rows = jacobian / loss[:, None]
        clock = ready.clock(float(theta[KAPPA]))[1][0]
        beyond = np.maximum(clock / self.domain["steps"][1], 1.0)
        variance = (
            np.einsum("rk,kl,rl->r", rows, self.covariance, rows) + self.noise["run_to_run"] ** 2
        )
        form = self.noise["form_error"] + self.noise["drift"] * np.log(beyond)
        half = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(variance + form**2)
        rates = schedule.peak / peak
        return CurveForecast(
            *(asked, loss, loss * np.exp(-half), loss * np.exp(half), level),
            {"steps": float(beyond.max()), "learning_rate": max(rates, 1.0 / rates)},
        )

    def final(self, schedule: Schedule, level: float = 0.9) -> Estimate:
        """The loss at the schedule's end.

        Raises:
            TableError: As for `predict`.
        """
        end = self.predict(schedule, [schedule.end], level)
        return Estimate(float(end.loss[0]), float(end.low[0]), float(end.high[0]), level)


def weak_belief(unit: float) -> Belief:
    """What is believed of any curve before it is seen, for a clock in units of `unit` steps.

    Exponents of progress of published curve laws lie between 0.4 and 0.6 (Luo et al. 2025, table
    of parameters; Tissue et al. 2024); kappa = 1/2 is what curves of three sizes agree on
    (benchmarks/laws_curves.py). Amplitudes are left to the curves.
    """
    centre = np.array([0.0, -1.0, np.log(0.45), -2.0, np.log(5e-3 * unit), np.log(1.5), 0.5])
    width = np.array([50.0, 50.0, 0.25, 50.0, 3.0, 0.7, 0.1])
    return Belief(centre, np.diag(width**-2.0))


def fit_curve(
    curves: Sequence[Curve],
    *,
    source: Sequence[dict[str, str]] = (),
    seed: int = 0,
) -> CurveLaw:
    """Fit the law to curves of one model made with two or more schedules.

    Args:
        curves: Points of the warm-up are left out.
        source: `path` and `sha256` of what the curves were read from.
        seed: Of the draws.

    Raises:
        TableError: No curves, or too few points for the parameters.
    """
    if not curves:
        raise TableError("there are no curves to fit")
    kept = [c.after_warmup() for c in curves]
    if sum(len(c.step) for c in kept) <= 2 * len(NAMES):
        raise TableError(
            f"{sum(len(c.step) for c in kept)} points after the warm-up are too few for "
            f"{len(NAMES)} parameters",
            fix="Log the loss more often, or give more curves",
        )
    peak = max(c.schedule.peak for c in kept)
    unit = max(float(c.step[-1]) for c in kept)
    parts = [points(c, peak=peak, unit=unit) for c in kept]
    belief = weak_belief(unit)
    best = min(
        (descend(parts, belief, s) for s in starts(parts, belief)), key=lambda o: o.objective
    )
    off = [residuals(part, best.theta) for part in parts]
    effective = sum(float(part.weight.sum()) for part in parts)
    # Errors larger than the form was granted widen the draws in proportion.
    excess = max(1.0, 2.0 * best.objective / max(effective - len(NAMES), 1.0))
    rng = np.random.default_rng(seed)
    covariance = np.linalg.inv(best.information) * excess
    drawn = rng.multivariate_normal(best.theta, covariance, size=DRAWS, method="svd")
    drawn = _natural(np.clip(drawn, LOWER, UPPER), unit)
    reach = max(float(p.terms.clock(float(best.theta[KAPPA]))[1][0].max()) for p in parts) * unit
    low_rate = min(float(c.schedule.rate[c.schedule.rate > 0].min()) for c in kept)
    return CurveLaw(
        form=FORM,
        formula=FORMULA,
        parameters=named(NAMES, _natural(best.theta[None], unit)[0]),
        stderr=named(NAMES, spread(drawn)),
        draws=drawn,
        noise={
            "run_to_run": _misfit(parts, off),
            "form_error": FORM_ERROR,
            "drift": DRIFT,
            "transient": _transient(kept, parts, off),
        },
        objective="huber",
        n_runs=len(kept),
        domain={
            "steps": (min(float(c.step[0]) for c in kept), reach),
            "learning_rate": (low_rate, peak),
        },
        source=tuple(source),
        warnings=tuple(_warnings(kept, parts, off)),
        verdict=_verdict(kept, parts, best, off),
    )


def _natural(theta: Array, unit: float) -> Array:
    """Parameters (B, K) per step of the clock, from theta (B, K) per unit of it."""
    values = np.exp(theta)
    values[:, 1] *= unit ** values[:, 2]
    values[:, 4] /= unit
    values[:, KAPPA] = theta[:, KAPPA]
    return np.asarray(values)


def _theta(values: Array) -> Array:
    """The inverse of `_natural` for a unit of one step."""
    theta = np.log(np.maximum(values, 1e-300))
    theta[:, KAPPA] = values[:, KAPPA]
    return np.asarray(theta)


def _warnings(curves: Sequence[Curve], parts: Sequence[Points], off: Sequence[Array]) -> list[str]:
    found = []
    peaks = [c.schedule.peak for c in curves]
    if max(peaks) > 1.05 * min(peaks):
        found.append(
            f"the peaks differ ({min(peaks):g} to {max(peaks):g}); the law counts rates in the "
            "highest and takes the others for falls that came before the start"
        )
    for curve, part, residual in zip(curves, parts, off, strict=True):
        bias = -float(np.mean(residual))
        if abs(bias) > 3.0 * (DELTA + float(np.mean(part.noise)) / np.sqrt(len(residual))):
            found.append(f"{curve.run_id} lies {100 * bias:+.2f} % from the law on the whole")
    return found


def _verdict(
    curves: Sequence[Curve], parts: Sequence[Points], best: Optimum, off: Sequence[Array]
) -> str:
    reasons = []
    deepest = max(float(part.terms.fall.sum()) for part in parts)
    if deepest < LEAST_FALL:
        reasons.append("no curve shows the learning rate falling, so what a fall brings is unknown")
    elif len(_shapes(curves)) < 2:
        reasons.append(
            "all curves have one schedule: progress and the gain of a falling rate cannot be "
            "told apart; add a run at a constant rate, or the part of one before its decay"
        )
    rms = _misfit(parts, off)
    if rms > MISFIT:
        reasons.append(
            f"the form misses the curves by {100 * rms:.1f} %: do they rise (repeated data), "
            "spike, or is a schedule not the one that was run?"
        )
    stuck = [
        name
        for name, t, low, high in zip(NAMES, best.theta, LOWER, UPPER, strict=True)
        if (t <= low or t >= high) and not (deepest < LEAST_FALL and name in ("B", "C", "beta"))
    ]
    if stuck:
        reasons.append(f"the fit runs to the limit of {', '.join(stuck)}")
    return f"unsupported: {'; '.join(reasons)}" if reasons else "supported"


def _misfit(parts: Sequence[Points], off: Sequence[Array]) -> float:
    """Root mean square of the residuals without the noise of the points and of the warm-up."""
    expected = np.concatenate([part.width**2 - DELTA**2 for part in parts])
    excess = np.mean(np.concatenate(off) ** 2 - expected)
    return float(np.sqrt(max(excess, DELTA**2)))


def _transient(curves: Sequence[Curve], parts: Sequence[Points], off: Sequence[Array]) -> float:
    """By how much the curves lie above the form where the warm-up ends, in ln loss: the regression
    of their residuals within twice the warm-up on how these fade."""
    above, squares = 0.0, 0.0
    for curve, part, residual in zip(curves, parts, off, strict=True):
        fades = transient(part.steps, curve.schedule.risen)
        near = part.steps < 2.0 * curve.schedule.risen
        above -= float(fades[near] @ residual[near])
        squares += float(fades[near] @ fades[near])
    return above / squares if squares > 0.0 else 0.0


def _shapes(curves: Sequence[Curve]) -> list[Array]:
    """The distinct schedules, each as its rates at 33 equal parts of what was seen of it."""
    found: list[Array] = []
    for curve in curves:
        at = np.linspace(curve.step[0], curve.step[-1], 33)
        shape = np.interp(at, curve.schedule.step, curve.schedule.rate) / curve.schedule.peak
        if all(float(np.abs(shape - other).max()) > SAME_SHAPE for other in found):
            found.append(shape)
    return found
