"""Laws of low precision: published constants, planted truth, closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from isoflop.core.errors import TableError
from isoflop.laws.precision import (
    KUMAR_2024,
    PrecisionLaw,
    fit_precision,
    fit_quantisation,
    from_document,
    published_precision,
    published_quantisation,
)

GRID = [
    g.ravel() for g in np.meshgrid([3e7, 6e7, 1.1e8, 2.2e8], [1.5e9, 6e9, 2.6e10], [3, 4, 6, 8, 12])
]


def _trained(n: np.ndarray, d: np.ndarray, p: np.ndarray) -> np.ndarray:
    floor, a, b, alpha, beta, gamma, offset = KUMAR_2024["precision"]
    return np.asarray(floor + a * (n * (1 - np.exp(offset - p / gamma))) ** -alpha + b * d**-beta)


def _added(n: np.ndarray, d: np.ndarray, p: np.ndarray) -> np.ndarray:
    c, of_d, of_n, post = KUMAR_2024["quantisation"]
    return np.asarray(c * d**of_d / n**of_n * np.exp(-p / post))


def test_published_constants_give_their_formulas() -> None:
    n, d, p = np.array([1.1e8]), np.array([1.3e10]), np.array([4.0])
    assert published_precision().predict(1.1e8, 1.3e10, 4).value == pytest.approx(
        _trained(n, d, p)[0]
    )
    added = published_quantisation().predict(1.1e8, 1.3e10, 4).value
    assert added == pytest.approx(_added(n, d, p)[0])
    # exp(b - P/gamma) with C_T as printed.
    assert added == pytest.approx(
        0.0598 * 1.3e10**0.5068 / 1.1e8**0.3439 * np.exp(1.1277 - 4 / 0.5907)
    )


def test_the_planted_training_law_is_recovered() -> None:
    law = fit_precision(*GRID, _trained(*GRID), bootstrap=50)
    assert law.supported
    for name, value in zip(law.parameters, KUMAR_2024["precision"], strict=True):
        assert law.parameters[name] == pytest.approx(value, rel=0.02), name


def test_the_planted_quantisation_law_is_recovered() -> None:
    law = fit_quantisation(*GRID, _added(*GRID), bootstrap=50)
    assert list(law.parameters.values()) == pytest.approx(KUMAR_2024["quantisation"], rel=1e-6)


def test_intervals_hold_the_planted_loss_about_as_often_as_they_say() -> None:
    at = [np.array([v]) for v in (1e9, 1e11, 5.0)]
    held = 0
    for seed in range(12):
        noise = np.random.default_rng(seed).standard_normal((2, len(GRID[0])))
        trained = fit_precision(*GRID, _trained(*GRID) * np.exp(0.002 * noise[0]), bootstrap=50)
        added = fit_quantisation(*GRID, _added(*GRID) * np.exp(0.1 * noise[1]), bootstrap=50)
        for law, truth in ((trained, _trained(*at)[0]), (added, _added(*at)[0])):
            found = law.predict(1e9, 1e11, 5.0)
            held += found.low <= truth <= found.high
    assert held >= 19  # of 24 at 90 %


def test_the_best_bits_solve_the_papers_equation() -> None:
    law = published_precision()
    plain = PrecisionLaw(**{**vars(law), "parameters": law.parameters | {"n": 0.0}})
    # d/dP of ln((1 - e^-u)^3 / u) = 0 with u = P/gamma: 3u = e^u - 1.
    u = brentq(lambda v: 3 * v - np.exp(v) + 1, 0.5, 4.0)
    assert plain.best_bits() == pytest.approx(u * law.parameters["gamma"], rel=1e-3)
    assert law.best_bits() > plain.best_bits()


def test_the_optimum_is_where_a_search_finds_it() -> None:
    law = published_precision()
    params, tokens = law.optimal(1e20, bits=6)
    assert 6 / 16 * 6 * params * tokens == pytest.approx(1e20)
    found = minimize_scalar(
        lambda ln_n: law.predict(np.exp(ln_n), 1e20 / (6 * 6 / 16) / np.exp(ln_n), 6).value,
        bounds=(np.log(1e7), np.log(1e11)),
        method="bounded",
    )
    assert params == pytest.approx(float(np.exp(found.x)), rel=1e-3)
    assert params > law.optimal(1e20 * 6 / 16, bits=16)[0]  # fewer bits: more parameters


def test_beyond_the_critical_tokens_training_harms_the_quantised_model() -> None:
    trained, added = published_precision(), published_quantisation()
    critical = added.critical_tokens(trained, 3e7, 4)

    def after(tokens: float) -> float:
        return trained.predict(3e7, tokens).value + added.predict(3e7, tokens, 4).value

    assert after(critical) < min(after(critical * 1.1), after(critical / 1.1))


def test_the_documents_read_back_to_the_same_loss(tmp_path: Path) -> None:
    for law in (
        fit_precision(*GRID, _trained(*GRID), bootstrap=50),
        fit_quantisation(*GRID, _added(*GRID), bootstrap=50),
    ):
        law.save(tmp_path / "law.json")
        again = from_document(json.loads((tmp_path / "law.json").read_text()))
        assert type(again) is type(law)
        assert again.predict(1e9, 1e11, 5).value == pytest.approx(law.predict(1e9, 1e11, 5).value)


def test_what_determines_no_law_is_refused() -> None:
    with pytest.raises(TableError, match="1 of bits"):
        fit_precision(GRID[0], GRID[1], np.full(60, 8.0), _trained(*GRID))
    with pytest.raises(TableError, match="added_loss is 0"):
        fit_quantisation(*GRID, np.zeros(60))
    with pytest.raises(TableError, match="no effective parameter"):
        published_precision().predict(1e8, 1e10, 0.5)
    rising = fit_quantisation(*GRID, 1.0 / _added(*GRID), bootstrap=50)
    assert "does not fall with the bits" in rising.verdict
