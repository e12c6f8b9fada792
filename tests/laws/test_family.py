"""What the law families share: documents, resampling and the curve solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.family import Beliefs, columns, fit_curves, resamples
from isoflop.laws.tasks import TaskLaw

X = np.linspace(0.5, 4.0, 12)


def _decay(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fall = np.exp(-theta[:, 2:3] * X)
    slopes = np.stack([np.ones_like(fall), fall, -theta[:, 1:2] * X * fall], axis=2)
    return theta[:, :1] + theta[:, 1:2] * fall, slopes


def test_many_curves_at_once_are_each_what_scipy_finds_alone() -> None:
    rng = np.random.default_rng(0)
    target = 0.5 + 2.0 * np.exp(-0.9 * X) + 0.02 * rng.standard_normal((7, len(X)))
    weight = rng.integers(0, 4, (7, len(X))).astype(float)
    start = np.tile([0.1, 1.0, 0.5], (7, 1))
    theta, objective = fit_curves(_decay, target, weight, start, iterations=300)
    for row in range(7):
        alone = least_squares(
            lambda t, row=row: np.sqrt(weight[row]) * (_decay(t[None])[0][0] - target[row]),
            start[row],
            xtol=1e-14,
            ftol=1e-14,
            gtol=1e-14,
        )
        assert objective[row] == pytest.approx(2.0 * alone.cost, rel=1e-8)
        assert theta[row] == pytest.approx(alone.x, rel=1e-4)


def test_a_coordinate_that_no_run_shows_stays_at_its_belief() -> None:
    flat = np.full(len(X), 0.5)
    beliefs = Beliefs(np.array([0.0, 0.0, 1.3]), np.array([0.0, 1.0, 0.01]))
    theta, _ = fit_curves(_decay, flat, np.ones(len(X)), np.array([[0.1, 0.2, 0.4]]), beliefs, 300)
    assert theta[0] == pytest.approx([0.5, 0.0, 1.3], abs=1e-4)


def test_resamples_draw_whole_groups() -> None:
    groups = np.array([3, 3, 5, 5, 5, 9])
    drawn = resamples(groups, 200, np.random.default_rng(1))
    for label in np.unique(groups):
        assert np.ptp(drawn[:, groups == label], axis=1).max() == 0.0
    assert np.all(drawn[:, [0, 2, 5]].sum(axis=1) == 3)


def test_columns_name_the_row_that_cannot_be_used() -> None:
    with pytest.raises(TableError, match="tokens is -1 in row 1"):
        columns("here", params=[1.0, 2.0], tokens=[3.0, -1.0])
    with pytest.raises(TableError, match="different lengths"):
        columns("here", params=[1.0], tokens=[3.0, 1.0])


def test_a_document_that_is_no_law_is_refused() -> None:
    with pytest.raises(ArtifactError, match="it has no form"):
        TaskLaw.from_document({})
