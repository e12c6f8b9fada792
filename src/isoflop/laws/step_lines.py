"""Whether a continuous score has a step over scale; not for counts (`step_curves`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoflop.laws.forms import Array

_POWERS = tuple(np.geomspace(0.02, 1.5, 30).tolist())
"""Exponents of the powers of scale that a smooth score may follow."""


@dataclass(frozen=True)
class LineStep:
    """The step that the best curve with one has."""

    p: float
    """Probability of one that improves the fit as much, were the score smooth."""
    share: float
    """Its size as a share of the score's whole range."""


def line_step(score: Array, scale: Array, draws: int, rng: np.random.Generator) -> LineStep:
    """The likeliest step of a score over scale, and whether a smooth score would seem to have it.

    Smooth means one of: a line, a parabola or a cubic in ln scale, a + b·scale^−α. The scatter of
    the seeds of a rung is the noise; with a single seed, what the best smooth curve leaves.

    Args:
        score: (R, S) means over items; NaN where a seed is missing.
        scale: (R,) increasing.
        draws: Simulations.
    """
    there = np.isfinite(score)
    count = there.sum(axis=1)
    mean = np.nansum(score, axis=1) / count
    smooth, stepped = _designs(scale)
    freedom = int((count - 1).sum())
    if freedom > 0:
        within = np.nansum((score - mean[:, None]) ** 2)
        variance = float(within) / freedom / count
    else:
        residual = _least(mean[None], smooth, np.ones_like(mean))[0]
        variance = np.full(len(mean), max(float(residual) / max(len(mean) - 3, 1), 1e-18))
    variance = np.maximum(variance, 1e-18)
    null, fitted, _ = _best(mean, smooth, variance)
    with_step, _, coefficients = _best(mean, stepped, variance)
    seen = null - with_step
    worlds = fitted + np.sqrt(variance) * rng.standard_normal((draws, len(mean)))
    gains = _least(worlds, smooth, variance) - _least(worlds, stepped, variance)
    if freedom > 0:  # the variance itself is an estimate: Student's, not normal, scatter
        gains = gains * freedom / rng.chisquare(freedom, draws)
    share = abs(float(coefficients[-1])) / max(float(np.ptp(mean)), 1e-12)
    return LineStep((1 + int((gains >= seen).sum())) / (1 + draws), share)


def _designs(scale: Array) -> tuple[list[Array], list[Array]]:
    """Design matrices (R, P) of smooth curves, and the same with a step between any two rungs."""
    x = np.log(scale / scale[0])
    x = x / x[-1]
    one = np.ones_like(x)
    smooth = [np.stack([x**k for k in range(degree + 1)], axis=1) for degree in (1, 2, 3)]
    smooth += [np.stack([one, (scale / scale[0]) ** -power], axis=1) for power in _POWERS]
    places = range(1, len(scale))
    steps = [(np.arange(len(scale)) >= place).astype(np.float64) for place in places]
    stepped = [np.column_stack([design, step]) for design in smooth for step in steps]
    return smooth, stepped


def _least(y: Array, designs: list[Array], variance: Array) -> Array:
    """(B,) the least weighted sum of squares over the designs, for tables (B, R)."""
    weight = 1 / np.sqrt(variance)
    best = np.full(len(y), np.inf)
    for design in designs:
        basis, _ = np.linalg.qr(design * weight[:, None])
        scaled = y * weight
        rest = scaled - (scaled @ basis) @ basis.T
        best = np.minimum(best, (rest**2).sum(axis=1))
    return best


def _best(y: Array, designs: list[Array], variance: Array) -> tuple[float, Array, Array]:
    """(least weighted sum of squares, fitted values, coefficients) of the best design."""
    weight = 1 / np.sqrt(variance)
    fits = []
    for design in designs:
        theta = np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)[0]
        fitted = np.asarray(design @ theta)
        fits.append((float((((y - fitted) * weight) ** 2).sum()), fitted, np.asarray(theta)))
    return min(fits, key=lambda fit: fit[0])
