"""Many robust curve fits at once, by damped Newton steps; not for choosing starts or forms.

Each of B problems minimises over its theta (K coordinates)

    sum_r w_r · huber_delta(ln L(theta; N_r, D_r) - ln loss_r) + ½ sum_k P_k (theta_k - m_k)²

with huber_delta(r) = r²/2 inside |r| ≤ delta and delta·(|r| - delta/2) outside (Huber 1964). The
usual re-weighted steps crawl where delta is small against the residuals, so the step is Newton's,
with the exact Hessian, damped towards the re-weighted one (Levenberg–Marquardt): far from the
optimum it behaves like the latter, near it it converges quadratically.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.laws.forms import Array, Design, Form

CHUNK_ELEMENTS = 60_000  # B·R per chunk: the working arrays of one stay in cache
# Coordinates further out than this are a parameter that the table does not determine.
LOWER = np.array([-12.0, -25.0, -25.0, np.log(0.01), np.log(0.01), np.log(0.05)])
UPPER = np.array([5.0, 5.0, 5.0, np.log(5.0), np.log(5.0), np.log(8.0)])


@dataclass(frozen=True)
class Prior:
    """Independent normal beliefs about the coordinates; precision 0 says nothing."""

    centre: Array
    """(K,) or (B, K)."""
    precision: Array
    """(K,) or (B, K): the P of the objective, in units of the summed squared log residual."""


@dataclass(frozen=True)
class Problem:
    """B fits that share a form and a design."""

    form: Form
    design: Design
    log_loss: Array
    """(R,) or (B, R)."""
    weight: Array
    """(R,) or (B, R)."""
    delta: Array
    """() or (B, 1): width of the quadratic part; infinite for least squares."""
    prior: Prior


@dataclass(frozen=True)
class Solution:
    """The optimum of each problem."""

    theta: Array
    """(B, K)."""
    objective: Array
    """(B,): the minimised sum."""
    converged: NDArray[np.bool_]
    """(B,) of bool."""


def bounds(form: Form) -> tuple[Array, Array]:
    """Lower and upper limits (K,) of the coordinates."""
    return LOWER[: form.size], UPPER[: form.size]


def minimise(problem: Problem, start: Array, *, iterations: int = 60) -> Solution:
    """Solve every problem from its row of `start` (B, K)."""
    count = len(start)
    step = max(1, CHUNK_ELEMENTS // max(1, problem.design.x.size))
    parts = []
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        parts.append(_minimise_chunk(_rows(problem, rows, count), start[rows], iterations))
    return Solution(
        np.concatenate([p.theta for p in parts]),
        np.concatenate([p.objective for p in parts]),
        np.concatenate([p.converged for p in parts]),
    )


def _rows(problem: Problem, rows: slice | NDArray[np.intp], count: int) -> Problem:
    """The problem with every per-fit array broadcast to `count` fits and cut to `rows`."""
    r, k = problem.design.x.size, problem.form.size

    def cut(array: Array, width: int) -> Array:
        return np.asarray(np.broadcast_to(array, (count, width))[rows])

    prior = Prior(cut(problem.prior.centre, k), cut(problem.prior.precision, k))
    return Problem(
        problem.form,
        problem.design,
        cut(problem.log_loss, r),
        cut(problem.weight, r),
        cut(problem.delta, 1),
        prior,
    )


def _objective(problem: Problem, residual: Array, theta: Array) -> Array:
    size = np.abs(residual)
    inside = np.minimum(size, problem.delta)
    loss = np.where(size <= problem.delta, 0.5 * size**2, inside * (size - 0.5 * inside))
    off = theta - problem.prior.centre
    penalty = 0.5 * np.sum(problem.prior.precision * off**2, axis=1)
    return np.asarray(np.sum(problem.weight * loss, axis=1) + penalty)


def _derivatives(problem: Problem, theta: Array) -> tuple[Array, Array, Array]:
    """Gradient (B, K), Newton's Hessian and the re-weighted one, (B, K, K) each."""
    evaluation = problem.form.evaluate(theta, problem.design)
    residual = evaluation.log_loss - problem.log_loss
    size = np.abs(residual)
    pull = problem.weight * np.clip(residual, -problem.delta, problem.delta)
    jac = evaluation.jacobian
    off = theta - problem.prior.centre
    gradient = np.einsum("bkr,br->bk", jac, pull) + problem.prior.precision * off
    own = problem.prior.precision[:, :, None] * np.eye(theta.shape[1])
    smooth = np.minimum(1.0, problem.delta / np.maximum(size, 1e-300))
    transposed = jac.swapaxes(1, 2)
    newton = (jac * (problem.weight * (size <= problem.delta))[:, None, :]) @ transposed
    newton += evaluation.curvature(pull) + own
    metric = (jac * (problem.weight * smooth)[:, None, :]) @ transposed + own
    diagonal = np.einsum("bkk->bk", metric)
    # A coordinate that the runs do not move at all still needs a finite step.
    metric += (1e-10 * diagonal.max(axis=1, keepdims=True) + 1e-300)[:, :, None] * np.eye(
        theta.shape[1]
    )
    return gradient, newton, metric


def _minimise_chunk(problem: Problem, start: Array, iterations: int) -> Solution:
    lower, upper = bounds(problem.form)
    theta = np.clip(start, lower, upper)
    count = len(theta)
    best = _objective(
        problem, problem.form.log_loss(theta, problem.design) - problem.log_loss, theta
    )
    damping = np.full(count, 1e-2)
    active = np.arange(count)
    part = problem
    for _ in range(iterations):
        now = theta[active]
        gradient, newton, metric = _derivatives(part, now)
        system = newton + np.maximum(damping[active, None, None], 1e-12) * metric
        move = -np.linalg.solve(system, gradient[:, :, None])[:, :, 0]
        trial = np.clip(now + np.clip(move, -1.5, 1.5), lower, upper)
        residual = part.form.log_loss(trial, part.design) - part.log_loss
        value = _objective(part, residual, trial)
        old = best[active]
        better = value < old
        gain = np.where(better, old - value, 0.0)
        taken = active[better]
        theta[taken], best[taken] = trial[better], value[better]
        damping[active] = np.where(
            better, damping[active] * 0.1, np.maximum(damping[active] * 10.0, 1e-4)
        )
        still = np.max(np.abs(trial - now), axis=1) < 1e-7
        done = (gain <= 1e-13 * old) & (still | (damping[active] > 1e8))
        keep = ~done
        if not keep.any():
            active = active[:0]
            break
        if not keep.all():
            active = active[keep]
            part = _rows(part, np.flatnonzero(keep), len(keep))
    return Solution(theta, best, ~np.isin(np.arange(count), active))
