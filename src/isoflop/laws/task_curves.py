"""The curves of a task's score in the loss, and the coordinates they are fitted in; no fit (tasks).

`exponential` (Gadre et al. 2024, eq. 5) and `sigmoid`: their formulas are in `FORMULAS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from isoflop.laws.family import Beliefs
from isoflop.laws.forms import Array

Curve = Literal["exponential", "sigmoid"]
PARAMETERS: dict[str, tuple[str, ...]] = {
    "exponential": ("epsilon", "k", "gamma"),
    "sigmoid": ("floor", "gain", "slope", "middle"),
}
FORMULAS = {
    "exponential": "score = 1 - (epsilon - k*exp(-gamma*loss))",
    "sigmoid": "score = floor + gain/(1 + exp(slope*(loss - middle)))",
}


def scores(curve: str, theta: Array, loss: Array) -> Array:
    """Scores (B, A) of parameters (B, K) at losses (A,) or (B, A)."""
    if curve == "exponential":
        return np.asarray(1.0 - theta[:, :1] + theta[:, 1:2] * np.exp(-theta[:, 2:3] * loss))
    turned = np.clip(theta[:, 2:3] * (loss - theta[:, 3:4]), -500.0, 500.0)
    return np.asarray(theta[:, :1] + theta[:, 1:2] / (1.0 + np.exp(turned)))


@dataclass(frozen=True)
class Problem:
    """Fits of one curve in coordinates in which every value is allowed: for the exponential
    (epsilon, ln k, ln gamma), for the sigmoid (floor, logit of floor + gain, ln slope, middle)."""

    curve: Curve
    loss: Array
    """(R,)."""
    fixed_floor: bool

    def score(self, theta: Array) -> tuple[Array, Array]:
        """Scores (B, R) and their derivatives (B, R, K)."""
        jacobian = np.empty((len(theta), len(self.loss), theta.shape[1]))
        if self.curve == "exponential":
            gamma = np.exp(theta[:, 2:3])
            rise = np.exp(np.minimum(theta[:, 1:2] - gamma * self.loss, 50.0))
            jacobian[:, :, 0], jacobian[:, :, 1] = -1.0, rise
            jacobian[:, :, 2] = -gamma * self.loss * rise
            values = 1.0 - theta[:, :1] + rise
        else:
            top = 1.0 / (1.0 + np.exp(-theta[:, 1:2]))
            slope, off = np.exp(theta[:, 2:3]), self.loss - theta[:, 3:4]
            share = 1.0 / (1.0 + np.exp(np.clip(slope * off, -500.0, 500.0)))
            bend = -(top - theta[:, :1]) * share * (1.0 - share) * slope
            jacobian[:, :, 0], jacobian[:, :, 1] = 1.0 - share, share * top * (1.0 - top)
            jacobian[:, :, 2], jacobian[:, :, 3] = bend * off, -bend
            values = theta[:, :1] + (top - theta[:, :1]) * share
        if self.fixed_floor:
            jacobian[:, :, 0] = 0.0
        return values, jacobian

    def start(self, score: Array, chance: float | None) -> Array:
        """Plausible curves (S, K) to start from: several middles or rates."""
        level = float(score.min()) if chance is None else chance
        span = float(np.ptp(self.loss))
        if self.curve == "exponential":
            gamma = np.array([0.3, 0.8, 2.0, 5.0])
            height = max(float(score.max()) - level, 1e-3)
            ln_k = np.log(height) + gamma * self.loss.min()
            return np.column_stack([np.full(4, 1.0 - level), ln_k, np.log(gamma)])
        middle = self.loss.min() + span * np.array([-0.3, 0.0, 0.2, 0.5])
        top = float(np.clip(max(score.max(), level) + 0.1, 0.05, 0.95))
        shape = [np.full(4, level), np.full(4, _logit(top)), np.full(4, np.log(8.0 / span)), middle]
        return np.column_stack(shape)

    def beliefs(self, variance: float) -> Beliefs:
        """Weak beliefs: a transition as wide as a few eighths of the table, at its best models or
        beyond, towards a top far above the floor; none for the exponential curve."""
        span, best = float(np.ptp(self.loss)), float(self.loss.min())
        if self.curve == "exponential":
            centre, width = np.zeros(3), np.full(3, np.inf)
        else:
            centre = np.array([0.0, _logit(0.8), np.log(8.0 / span), best - 0.3 * span])
            width = np.array([np.inf, 1.0, 0.8, 0.3 * span])
        return Beliefs(centre, variance / width**2)

    def printed(self, theta: Array) -> Array:
        """Printed parameters (B, K) of coordinates (B, K)."""
        shown = np.array(theta)
        if self.curve == "exponential":
            shown[:, 1:] = np.exp(np.minimum(theta[:, 1:], 300.0))
        else:
            shown[:, 1] = 1.0 / (1.0 + np.exp(-theta[:, 1])) - theta[:, 0]
            shown[:, 2] = np.exp(theta[:, 2])
        return shown


def _logit(share: float) -> float:
    return float(np.log(share / (1.0 - share)))
