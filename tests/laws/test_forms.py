"""The forms' values and derivatives against their printed formulas and finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.forms import CHINCHILLA, FORMS, GAMMA, Design, Form, get_form, printed_loss

N = np.array([3e6, 1e7, 5e7, 3e7])
D = np.array([1e9, 3e8, 2e9, 9e9])
PRINTED = {
    "chinchilla": np.array([[1.8, 480.0, 2100.0, 0.35, 0.37]]),
    "gamma": np.array([[1.7, 2300.0, 9800.0, 0.42, 0.43, 0.77]]),
    # E is what a form without a floor holds it at, here as any small number.
    "kaplan-nd": np.array([[3e-4, 4.4e4, 7.1e4, 0.74, 0.67, 0.27]]),
}
BOTH = pytest.mark.parametrize("form", list(FORMS.values()), ids=list(FORMS))


@BOTH
def test_coordinates_give_the_printed_formula(form: Form) -> None:
    design = Design.of(N, D)
    e, a, b, alpha, beta, *g = PRINTED[form.name][0]
    expected = e + (a * N**-alpha + b * D**-beta) ** (g[0] if g else 1.0)
    theta = form.from_printed(PRINTED[form.name], design)
    np.testing.assert_allclose(np.exp(form.log_loss(theta, design))[0], expected, rtol=1e-12)
    np.testing.assert_allclose(
        [printed_loss(PRINTED[form.name], n, d)[0] for n, d in zip(N, D, strict=True)],
        expected,
        rtol=1e-12,
    )


@BOTH
def test_printing_undoes_centring(form: Form) -> None:
    design = Design.of(N, D)
    theta = form.from_printed(PRINTED[form.name], design)
    np.testing.assert_allclose(form.to_printed(theta, design), PRINTED[form.name], rtol=1e-12)


@BOTH
def test_jacobian_equals_finite_differences(form: Form) -> None:
    design = Design.of(N, D)
    theta = form.from_printed(PRINTED[form.name], design)
    analytic = form.evaluate(theta, design).jacobian[0]
    step = 1e-6
    for k in range(form.size):
        shift = np.zeros(form.size)
        shift[k] = step
        numeric = (form.log_loss(theta + shift, design) - form.log_loss(theta - shift, design)) / (
            2 * step
        )
        np.testing.assert_allclose(analytic[k], numeric[0], atol=1e-9)


@BOTH
def test_curvature_equals_differences_of_the_jacobian(form: Form) -> None:
    design = Design.of(N, D)
    theta = form.from_printed(PRINTED[form.name], design)
    weight = np.array([[0.5, -1.0, 2.0, 0.25]])
    analytic = form.evaluate(theta, design).curvature(weight)[0]
    step = 1e-5
    for k in range(form.size):
        shift = np.zeros(form.size)
        shift[k] = step
        up = form.evaluate(theta + shift, design).jacobian[0] @ weight[0]
        down = form.evaluate(theta - shift, design).jacobian[0] @ weight[0]
        np.testing.assert_allclose(analytic[k], (up - down) / (2 * step), atol=1e-8)


def test_gamma_with_g_one_is_the_additive_form() -> None:
    design = Design.of(N, D)
    additive = CHINCHILLA.from_printed(PRINTED["chinchilla"], design)
    widened = np.column_stack([additive, [0.0]])
    np.testing.assert_allclose(
        GAMMA.log_loss(widened, design), CHINCHILLA.log_loss(additive, design), rtol=1e-14
    )


def test_unknown_form_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(TableError, match="chinchilla, gamma"):
        get_form("chinchila")
