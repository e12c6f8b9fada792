from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, sparse

from isoflop.core.errors import DataError
from isoflop.data.logistic import fit, sigmoid


def problem(seed: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.4)
    logits = features @ rng.normal(size=d) + 0.7
    return features, rng.random(n) < sigmoid(logits)


@pytest.mark.parametrize("l2", [1e-3, 1.0, 50.0])
def test_the_optimum_is_that_of_a_general_optimiser(l2: float) -> None:
    features, labels = problem(1, 300, 12)
    signs = np.where(labels, 1.0, -1.0)

    def loss(v: np.ndarray) -> float:
        margins = signs * (features @ v[:-1] + v[-1])
        return float(np.logaddexp(0, -margins).sum() + 0.5 * l2 * v[:-1] @ v[:-1])

    best = optimize.minimize(loss, np.zeros(13), method="BFGS", options={"gtol": 1e-6})
    weights, bias = fit(sparse.csr_matrix(features), labels, l2)
    np.testing.assert_allclose([*weights, bias], best.x, atol=2e-5)
    assert loss(np.append(weights, bias)) <= best.fun + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_vanishes_at_the_optimum_even_with_more_features_than_examples(
    seed: int,
) -> None:
    features, labels = problem(seed, 60, 500)
    weights, bias = fit(sparse.csr_matrix(features), labels, 0.1)
    errors = sigmoid(features @ weights + bias) - labels
    np.testing.assert_allclose(features.T @ errors + 0.1 * weights, 0, atol=1e-6)
    # The bias is free, so scores are right on average.
    assert errors.sum() == pytest.approx(0, abs=1e-6)


def test_without_informative_features_the_score_is_the_share_of_positives() -> None:
    features = sparse.csr_matrix(np.ones((40, 1)))
    labels = np.arange(40) < 10
    weights, bias = fit(features, labels, 1e9)
    assert sigmoid(np.array([weights[0] + bias]))[0] == pytest.approx(0.25, abs=1e-6)


def test_examples_of_one_kind_are_refused() -> None:
    with pytest.raises(DataError, match="same label"):
        fit(sparse.csr_matrix(np.ones((3, 1))), np.ones(3, bool), 1.0)


def test_sigmoid_is_exact_far_out() -> None:
    found = sigmoid(np.array([-800.0, -2.0, 0.0, 2.0, 800.0]))
    np.testing.assert_allclose(found, [0, 1 / (1 + np.e**2), 0.5, 1 / (1 + np.e**-2), 1])
