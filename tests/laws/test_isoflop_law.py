"""The form `isoflop` on tables made at fixed budgets."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.isoflop_law import IsoflopLaw, fit_isoflop
from isoflop.laws.records import RunTable


def _table(alpha: float, beta: float, noise: float = 0.0, seed: int = 0) -> RunTable:
    """Six budgets of 11 sizes about the optimum of 1.7 + 400/N^alpha + 400/D^beta."""
    rng = np.random.default_rng(seed)
    n, d = [], []
    for c in np.geomspace(1e17, 1e20, 6):
        best = (alpha / beta) ** (1 / (alpha + beta)) * (c / 6) ** (beta / (alpha + beta))
        sizes = best * np.geomspace(0.3, 3.0, 11)
        n.append(sizes)
        d.append(c / 6 / sizes)
    params, tokens = np.concatenate(n), np.concatenate(d)
    loss = 1.7 + 400 * params**-alpha + 400 * tokens**-beta
    return RunTable.from_arrays(params, tokens, loss * np.exp(noise * rng.normal(size=loss.size)))


def test_equal_exponents_divide_a_budget_by_its_root() -> None:
    law = fit_isoflop(_table(0.3, 0.3), bootstrap=100)
    assert law.supported
    assert law.parameters["a"] == pytest.approx(0.5, abs=1e-3)
    best = law.optimal(1e22)
    assert best.params == pytest.approx(np.sqrt(1e22 / 6), rel=0.01)
    assert best.params * best.tokens == pytest.approx(1e22 / 6)
    assert best.exponents["a"] + best.exponents["b"] == 1.0
    assert best.loss.extrapolation["flops"] == pytest.approx(100.0)
    assert np.isnan(best.loss.loss)


def test_the_bootstrap_covers_the_truth_under_noise() -> None:
    law = fit_isoflop(_table(0.3, 0.3, 5e-4), bootstrap=200)
    assert 0.0 < law.stderr["a"] < 0.05
    assert law.parameters["a"] == pytest.approx(0.5, abs=4 * law.stderr["a"])
    assert law.draws.shape == (200, 2)


def test_what_the_law_holds_survives_its_document() -> None:
    law = fit_isoflop(_table(0.34, 0.28, 5e-4), bootstrap=60)
    assert len(law.noise["minima"]) == 6
    assert len(law.noise["envelope"]) == 2
    again = IsoflopLaw.from_document(law.to_dict())
    assert again.to_dict() == law.to_dict()


def test_slices_without_a_minimum_are_named() -> None:
    table = _table(0.3, 0.3)
    cut = (6 * table.params * table.tokens < 2e17) & (table.params > 1e8)
    keep = np.flatnonzero(~cut)
    picked = RunTable.from_arrays(table.params[keep], table.tokens[keep], table.loss[keep])
    law = fit_isoflop(picked, bootstrap=60)
    assert any("lowest run is at the end of the slice" in warning for warning in law.warnings)


def test_impossible_requests_are_refused() -> None:
    law = fit_isoflop(_table(0.3, 0.3), bootstrap=60)
    with pytest.raises(TableError, match="flops must be positive"):
        law.optimal(-1.0)
    with pytest.raises(TableError, match="refits are too few"):
        fit_isoflop(_table(0.3, 0.3), bootstrap=3)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 9e9, 5)))
    with pytest.raises(TableError, match="groups of at least 4 sizes at equal compute"):
        fit_isoflop(RunTable.from_arrays(n, d, 1.7 + 400 / n**0.3 + 400 / d**0.3))
