"""The batched Newton solver against scipy's optimisers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from isoflop.laws.forms import CHINCHILLA, GAMMA, Array, Design, Form
from isoflop.laws.solver import Prior, Problem, minimise

rng = np.random.default_rng(5)
N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
DESIGN = Design.of(N, D)
TRUE = CHINCHILLA.from_printed(np.array([[1.7, 400.0, 900.0, 0.34, 0.33]]), DESIGN)
LOG_LOSS = CHINCHILLA.log_loss(TRUE, DESIGN)[0] + 0.004 * rng.standard_normal(N.size)


def objective(theta: Array, form: Form, problem: Problem) -> float:
    residual = np.abs(form.log_loss(theta[None], DESIGN)[0] - problem.log_loss)
    width = float(problem.delta)
    loss = np.where(residual <= width, residual**2 / 2, width * (residual - width / 2))
    off = theta - problem.prior.centre
    return float(problem.weight @ loss + 0.5 * problem.prior.precision @ off**2)


@pytest.mark.parametrize("form", [CHINCHILLA, GAMMA], ids=["chinchilla", "gamma"])
@pytest.mark.parametrize("delta", [1e9, 1e-3])
def test_no_general_optimiser_finds_a_lower_objective(form: Form, delta: float) -> None:
    start = np.zeros(form.size)
    start[:5] = TRUE[0] + 0.2
    prior = Prior(start, np.full(form.size, 1e-6 if form is GAMMA else 0.0))
    weight = rng.uniform(0.5, 2.0, N.size)
    problem = Problem(form, DESIGN, LOG_LOSS, weight, np.array(delta), prior)
    found = minimise(problem, start[None])
    assert found.converged[0]
    assert objective(found.theta[0], form, problem) == pytest.approx(found.objective[0], rel=1e-12)
    scale = 1e4  # scipy's stopping rules are absolute
    other = minimize(
        lambda t: scale * objective(t, form, problem),
        found.theta[0] + 1e-3,
        method="Nelder-Mead",
        options={"maxiter": 6000, "xatol": 1e-9, "fatol": 1e-13, "adaptive": True},
    )
    assert found.objective[0] <= other.fun / scale + 1e-12


def test_a_batch_gives_what_single_fits_give() -> None:
    shaken = LOG_LOSS + 0.003 * rng.standard_normal((40, N.size))
    prior = Prior(np.zeros(5), np.zeros(5))
    widths = np.geomspace(1e-3, 1e-2, 40)[:, None]
    batch = minimise(
        Problem(CHINCHILLA, DESIGN, shaken, np.ones(N.size), widths, prior), np.repeat(TRUE, 40, 0)
    )
    for i in (0, 17, 39):
        one = Problem(CHINCHILLA, DESIGN, shaken[i], np.ones(N.size), widths[i], prior)
        np.testing.assert_allclose(minimise(one, TRUE).theta[0], batch.theta[i], atol=1e-6)


def test_a_gaussian_prior_alone_decides_a_coordinate_that_no_run_moves() -> None:
    flat = Design(np.zeros(6), np.linspace(-1, 1, 6), 0.0, 0.0)
    log_loss = np.log(2.0 + np.exp(-0.4 * flat.y))
    centre = np.array([np.log(1.2), -0.2, 0.0, np.log(0.3), np.log(0.35)])
    prior = Prior(centre, np.full(5, 1e-4))
    problem = Problem(CHINCHILLA, flat, log_loss, np.ones(6), np.array(np.inf), prior)
    assert minimise(problem, centre[None]).theta[0, 3] == pytest.approx(np.log(0.3), abs=1e-9)
