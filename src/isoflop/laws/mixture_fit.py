"""Fits the curve of one validation domain over mixtures, and its refits; not the law (mixture).

Shape legend: `B` refits, `R` runs, `J` training domains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoflop.laws.family import Beliefs, Model, fit_curves
from isoflop.laws.forms import Array

DRAW_STEPS = 30
SLOPE_WIDTH = 3.0  # nobody has published a t beyond: losses would change by e^3 between domains
FLOOR_WIDTH = 2.0


@dataclass(frozen=True)
class Domain:
    """The fit of one validation domain.

    Coordinates theta (1 + J,): the floor as a share of the lowest loss, through a logistic, and ln
    of what the loss has above it in each pure domain. Weak beliefs hold what no mixture shows.
    """

    theta: Array
    lowest: float
    beliefs: Beliefs
    residual: Array
    """ln loss - ln law, (R,)."""
    scatter: float


def curve(lowest: float, r: Array) -> Model:
    """ln loss (B, R) of coordinates theta (B, 1 + J) at mixtures r (R, J)."""

    def model(theta: Array) -> tuple[Array, Array]:
        share = 1.0 / (1.0 + np.exp(-theta[:, :1]))
        rise = np.exp(np.clip(theta[:, 1:] @ r.T, -50.0, 50.0))
        value = share * lowest + rise
        jacobian = np.empty((len(theta), len(r), theta.shape[1]))
        jacobian[:, :, 0] = share * (1.0 - share) * lowest
        jacobian[:, :, 1:] = rise[:, :, None] * r
        return np.log(value), jacobian / value[:, :, None]

    return model


def fit_domain(r: Array, loss: Array) -> Domain:
    """The fit to losses (R,) of mixtures (R, J)."""
    lowest, domains = float(loss.min()), r.shape[1]
    target, model = np.log(loss), curve(lowest, r)
    above = np.log(np.maximum(loss - 0.5 * lowest, 1e-6 * lowest))
    slopes = np.linalg.lstsq(r, above, rcond=None)[0]
    start = np.concatenate([[0.0], slopes])
    centre = np.append(0.0, np.full(domains, float(above.mean())))
    width = np.append(FLOOR_WIDTH, np.full(domains, SLOPE_WIDTH))
    scatter, freedom = 0.01, max(len(r) - domains - 1, 1)
    for _ in range(3):  # the weight of the beliefs depends on the scatter, and it on the fit
        beliefs = Beliefs(centre, scatter**2 / width**2)
        best = fit_curves(model, target, np.ones(len(r)), start[None], beliefs, 200)[0]
        off = target - model(best)[0][0]
        scatter = max(float(np.sqrt(off @ off / freedom)), 1e-9)
    return Domain(best[0], lowest, beliefs, off, scatter)


def refits(fit: Domain, r: Array, luck: Array, rng: np.random.Generator) -> Array:
    """Printed c, k, t (1 + B, 2 + J): the fit, then fits of what it says with other luck (B, R) and
    shaken beliefs.

    A dozen runs of four unknowns leave resampled rows too few to fit; their residuals do not.
    """
    model = curve(fit.lowest, r)
    shape = (len(luck), len(fit.theta))
    with np.errstate(divide="ignore"):
        width = fit.scatter / np.sqrt(fit.beliefs.precision)
    beliefs = Beliefs(
        fit.beliefs.centre + width * rng.standard_normal(shape), fit.beliefs.precision
    )
    target = model(fit.theta[None])[0] + luck
    starts = np.broadcast_to(fit.theta, shape)
    drawn = fit_curves(model, target, np.ones(len(r)), starts, beliefs, DRAW_STEPS)[0]
    theta = np.concatenate([fit.theta[None], drawn])
    level = theta[:, 1:].mean(axis=1, keepdims=True)
    floor = fit.lowest / (1.0 + np.exp(-theta[:, :1]))
    return np.concatenate([floor, np.exp(level), theta[:, 1:] - level], axis=1)
