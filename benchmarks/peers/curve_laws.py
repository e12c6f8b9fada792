"""The two published curve laws, fitted by scipy to the same points; peers of `laws_curves.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from isoflop.laws.curve_fit import Curve

Array = NDArray[np.float64]
WARMUP = 2160.0


def _area(curve: Curve) -> Array:
    step, rate = curve.step, curve.schedule.rate
    gained = np.cumsum(np.diff(step) * (rate[1:] + rate[:-1]) / 2)
    return np.concatenate([[0.0], gained]) + rate[0] * (step[0] - WARMUP / 2)


def multi_power(curve: Curve, theta: Array) -> Array:
    """Luo et al. 2025, eq. 2, with the rate counted in the peak and the area in 1e4 steps of it."""
    peak = 3e-4
    area, rate = _area(curve) / peak / 1e4, curve.schedule.rate / peak
    floor, ln_a, alpha, b, ln_c, beta, gamma = theta
    fall = -np.diff(rate)
    middle = 0.5 * (area[1:] + area[:-1])
    lag = np.maximum(area[:, None] - middle, 0.0) * rate[1:] ** -gamma
    lag = np.where(np.arange(len(area))[:, None] > np.arange(len(fall)), lag, 0.0)
    lost = (1.0 - (1.0 + np.exp(ln_c) * lag) ** -beta) @ fall
    return np.asarray(floor + np.exp(ln_a) * area**-alpha - b * lost)


def momentum(curve: Curve, theta: Array) -> Array:
    """Tissue et al. 2024: the second area is a momentum of the falls with decay lambda per step."""
    peak = 3e-4
    area, rate = _area(curve) / peak / 1e4, curve.schedule.rate / peak
    floor, ln_a, alpha, b, ln_life = theta
    decay = float(np.exp(-np.exp(-ln_life)))
    carried, total, second = 0.0, 0.0, np.zeros(len(rate))
    for i in range(1, len(rate)):
        steps = curve.step[i] - curve.step[i - 1]
        fall, kept = (rate[i - 1] - rate[i]) / steps, decay**steps
        done = (1.0 - kept) / (1.0 - decay)
        total += carried * decay * done + fall * (steps - decay * done) / (1.0 - decay)
        carried = carried * kept + fall * done
        second[i] = total
    # Counted per unit of the momentum's own reach, so that b is the loss a full fall brings.
    return np.asarray(floor + np.exp(ln_a) * area**-alpha - b * second * (1.0 - decay))


PEERS: dict[str, tuple[Callable[[Curve, Array], Array], Array, Array, Array]] = {
    "multi-power (Luo 2025)": (
        multi_power,
        np.array([2.7, -1.0, 0.45, 0.15, 5.0, 0.5, 0.6]),
        np.array([0.1, -8.0, 0.05, 0.0, -3.0, 0.05, -1.0]),
        np.array([6.0, 3.0, 2.0, 5.0, 12.0, 4.0, 2.0]),
    ),
    "momentum (Tissue 2024)": (
        momentum,
        np.array([2.7, -1.0, 0.45, 0.1, 6.0]),
        np.array([0.1, -8.0, 0.05, 0.0, 1.0]),
        np.array([6.0, 3.0, 2.0, 5.0, 11.0]),
    ),
}


def fit_peer(name: str, curves: Sequence[Curve]) -> Callable[[Curve], Array]:
    """A published form fitted by bounded least squares with a soft-L1 loss of width 1e-3."""
    form, start, low, high = PEERS[name]

    def off(theta: Array) -> Array:
        return np.concatenate([np.log(np.maximum(form(c, theta), 0.1) / c.loss) for c in curves])

    best: Any = None
    for shift in (-1.5, 0.0, 1.5):
        begin = start.copy()
        begin[4] += shift
        found = least_squares(
            off, begin, bounds=(low, high), loss="soft_l1", f_scale=1e-3, x_scale=high - low
        )
        best = found if best is None or found.cost < best.cost else best
    return lambda curve: form(curve, best.x)
