"""Logistic regression on sparse features by Newton's method; not for measuring how good it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import DataError

Floats = NDArray[np.float64]

_MAX_STEPS = 100
_MAX_CONJUGATE_STEPS = 250
_TOLERANCE = 1e-8


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + e^−x), without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def fit(features: Any, labels: NDArray[np.bool_], l2: float) -> tuple[Floats, float]:
    """The weights that minimise the logistic loss plus a penalty on their squares.

    Minimises Σ_i ln(1 + exp(−y_i (w·x_i + b))) + l2/2 · |w|², y_i = ±1, by Newton steps whose
    linear systems conjugate gradients solve as far as is worthwhile (Nocedal & Wright 2006,
    algorithm 7.1); the bias is not penalised, so the mean score equals the share of positives.

    Args:
        features: (n, d) scipy sparse matrix in row form.
        labels: (n,) which are positive.
        l2: The strength of the penalty, above 0.

    Returns:
        (d,) weights and the bias.

    Raises:
        DataError: All labels are the same, so that no finite bias is best.
    """
    if labels.all() or not labels.any():
        raise DataError("all examples have the same label", fix="Give positive and negative ones")
    columns = features.T.tocsr()
    weights, targets = np.zeros(features.shape[1] + 1), labels.astype(np.float64)
    weights[-1] = np.log(targets.mean() / (1 - targets.mean()))

    def gradient(at: Floats) -> tuple[float, Floats, Floats]:
        logits = features @ at[:-1] + at[-1]
        scores = sigmoid(logits)
        losses = np.logaddexp(0, logits) - targets * logits
        loss = losses.sum() + 0.5 * l2 * float(at[:-1] @ at[:-1])
        slope = np.append(columns @ (scores - targets) + l2 * at[:-1], (scores - targets).sum())
        return float(loss), slope, scores * (1 - scores)

    loss, slope, curvature = gradient(weights)
    enough = _TOLERANCE * max(1.0, float(np.linalg.norm(slope)))
    for _ in range(_MAX_STEPS):
        size = float(np.linalg.norm(slope))
        if size <= enough:
            break
        step = _newton_step(features, columns, curvature, slope, l2, min(0.1, size**0.5) * size)
        length, decrease = 1.0, float(slope @ step)
        while length > 1e-10:  # Armijo's condition; the first length nearly always passes
            tried = gradient(weights + length * step)
            if tried[0] <= loss + 1e-4 * length * decrease:
                break
            length /= 2
        else:
            break  # no further decrease can be told from rounding
        weights = weights + length * step
        loss, slope, curvature = tried
    return weights[:-1], float(weights[-1])


def _newton_step(
    features: Any, columns: Any, curvature: Floats, slope: Floats, l2: float, enough: float
) -> Floats:
    """s with H s ≈ −slope, by conjugate gradients until the residual is below `enough`."""

    def product(v: Floats) -> Floats:
        weighted = curvature * (features @ v[:-1] + v[-1])
        return np.append(columns @ weighted + l2 * v[:-1], weighted.sum())

    step, residual = np.zeros_like(slope), -slope
    direction, square = residual.copy(), float(residual @ residual)
    for _ in range(_MAX_CONJUGATE_STEPS):
        if square <= enough**2:
            break
        image = product(direction)
        bend = float(direction @ image)
        if bend <= 0:  # flat within rounding: what is found so far goes downhill
            break
        length = square / bend
        step += length * direction
        residual -= length * image
        before, square = square, float(residual @ residual)
        direction = residual + square / before * direction
    return step if np.any(step) else -slope
