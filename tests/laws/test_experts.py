"""The joint law of dense models and mixtures of experts: published reductions, planted truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from isoflop.core.errors import TableError
from isoflop.laws.experts import (
    LUDZIEJEWSKI_2025,
    fit_experts,
    from_document,
    helpful_experts,
    joint_loss,
    published_experts,
    reduced,
)

# Ludziejewski et al. 2025, table 4: their law at fixed E, as m, mu, n, nu.
TABLE_4 = {
    1: (30.3640, -0.1817, 53.9838, -0.1965),
    2: (27.7982, -0.1780, 66.8401, -0.2065),
    4: (24.8462, -0.1731, 87.7022, -0.2192),
    8: (21.8330, -0.1676, 119.9126, -0.2338),
    16: (19.0159, -0.1617, 167.5073, -0.2494),
    32: (16.5424, -0.1557, 234.6726, -0.2652),
}
TRUE = np.array([LUDZIEJEWSKI_2025])


def _runs(noise: float, seed: int = 0) -> dict[str, np.ndarray]:
    grid = np.meshgrid([8e7, 2e8, 5e8, 1.2e9], [1e9, 4e9, 1.6e10, 6.4e10], [1.0, 4.0, 16.0])
    n, d, e = (g.ravel() for g in grid)
    wobble = np.exp(noise * np.random.default_rng(seed).standard_normal(n.size))
    return {"params": n, "tokens": d, "experts": e, "loss": joint_loss(TRUE, n, d, e)[0] * wobble}


@pytest.mark.parametrize("experts", TABLE_4)
def test_the_published_law_reduces_to_its_table_4(experts: int) -> None:
    a, alpha, b, beta, c = reduced(TRUE, experts)[0]
    m, mu, n, nu = TABLE_4[experts]
    # Their coefficients are printed with 4 digits, which the powers of Ê amplify.
    assert [a, b] == pytest.approx([m, n], rel=0.005)
    assert [alpha, beta] == pytest.approx([mu, nu], abs=2e-4)
    assert c == 1.3637


def test_a_dense_model_counts_as_e_start_experts_and_many_as_e_max() -> None:
    assert helpful_experts(1.0, 2.0, 300.0) == pytest.approx(2.0)
    assert helpful_experts(1e9, 2.0, 300.0) == pytest.approx(300.0, rel=1e-5)


def test_the_planted_law_is_recovered() -> None:
    law = fit_experts(**_runs(0.0), bootstrap=50)
    assert law.supported
    for name, value in zip(law.parameters, LUDZIEJEWSKI_2025, strict=True):
        assert law.parameters[name] == pytest.approx(value, rel=0.02), name


def test_forecasts_to_ten_times_the_compute_keep_their_intervals() -> None:
    held, errors = 0, []
    at = [np.array([v]) for v in (4e9, 2e11, 32.0)]
    truth = float(joint_loss(TRUE, *at)[0, 0])
    for seed in range(12):
        found = fit_experts(**_runs(0.002, seed), bootstrap=50).predict(4e9, 2e11, 32.0)
        held += found.low <= truth <= found.high
        errors.append(abs(found.value / truth - 1.0))
    assert held >= 9
    assert float(np.mean(errors)) < 0.01


def test_the_optimum_is_where_a_search_finds_it() -> None:
    law = published_experts()
    best = law.optimal(1e21, experts=8)

    def loss(ln_n: float) -> float:
        n = np.exp(ln_n)
        return law.predict(n, 1e21 / 6 / n, 8).value

    found = minimize_scalar(loss, bounds=(np.log(1e7), np.log(1e11)), method="bounded")
    assert best.params == pytest.approx(float(np.exp(found.x)), rel=1e-3)
    assert best.loss.value == pytest.approx(found.fun, rel=1e-9)


def test_the_dense_equivalent_reaches_the_same_loss() -> None:
    law = published_experts()
    dense = law.dense_equivalent(5e8, 3e10, 16)
    assert dense > 5e8
    assert law.predict(dense, 3e10, 1).value == pytest.approx(law.predict(5e8, 3e10, 16).value)


def test_derivatives_are_those_of_finite_differences() -> None:
    from isoflop.laws.experts import _Design

    table = _runs(0.0)
    design = _Design.of(table, *LUDZIEJEWSKI_2025[9:])
    theta = np.array([[0.3, -0.2, -1.5, 0.1, 0.02, -0.5, -1.3, 0.2, -0.03]])
    exact = design.log_loss(theta)[1][0]
    for k in range(9):
        step = 1e-6 * np.eye(9)[k]
        near = (design.log_loss(theta + step)[0] - design.log_loss(theta - step)[0])[0] / 2e-6
        assert exact[:, k] == pytest.approx(near, abs=1e-8)


def test_the_document_reads_back_to_the_same_loss(tmp_path: Path) -> None:
    law = fit_experts(**_runs(0.002), bootstrap=50)
    law.save(tmp_path / "law.json")
    again = from_document(json.loads((tmp_path / "law.json").read_text()))
    assert again.predict(1e9, 1e11, 8).value == pytest.approx(law.predict(1e9, 1e11, 8).value)


def test_tables_that_determine_no_law_are_refused() -> None:
    runs = _runs(0.0)
    with pytest.raises(TableError, match="1 of experts"):
        fit_experts(**runs | {"experts": np.ones(48)})
    with pytest.raises(TableError, match="less than one expert"):
        fit_experts(**runs | {"experts": np.full(48, 0.5)})
    two = runs["experts"] < 10
    law = fit_experts(**{name: column[two] for name, column in runs.items()}, bootstrap=50)
    assert law.verdict == "unsupported: fewer than 3 values of experts"
    with pytest.raises(TableError, match="are none"):
        published_experts().predict(1e9, 1e10, 0.0 + 0.5)
