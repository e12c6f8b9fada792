"""The law behind a plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError, RecipeError, TableError
from isoflop.laws import RunTable, fit
from isoflop.laws.frontier import fit_frontier
from isoflop.laws.isoflop_law import fit_isoflop
from isoflop.planning.forecast import resolve_law

CHINCHILLA = 5.76e23
"""Training FLOPs of Gopher and Chinchilla (Hoffmann et al. 2022)."""


def test_hoffmanns_law_gives_chinchilla_its_67_billion_parameters() -> None:
    params, tokens = resolve_law("hoffmann").optimal(CHINCHILLA)
    assert params == pytest.approx(67e9, rel=0.02)  # table 3
    assert tokens == pytest.approx(1.5e12, rel=0.06)


def test_hoffmanns_third_approach_gives_40_billion() -> None:
    # Table A3 puts 67 billion at 1.71e24 FLOPs; down to 5.76e23 with exponent 0.46.
    params, _ = resolve_law("hoffmann-3").optimal(CHINCHILLA)
    assert params == pytest.approx(67e9 * (5.76e23 / 1.71e24) ** 0.46, rel=0.01)


def test_besiroglus_optimum_is_about_twenty_tokens_per_parameter() -> None:
    params, tokens = resolve_law("besiroglu").optimal(CHINCHILLA)
    # G (C/6)^a with their rounded parameters.
    g = (0.3478 * 482.01 / (0.3658 * 2085.43)) ** (1 / (0.3478 + 0.3658))
    assert params == pytest.approx(g * (CHINCHILLA / 6) ** (0.3658 / 0.7136), rel=1e-6)
    assert params == pytest.approx(7.2e10, rel=0.01)
    assert tokens / params == pytest.approx(18.6, rel=0.02)


def test_without_a_law_it_is_besiroglus() -> None:
    assert resolve_law(None).name == "besiroglu"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TableError, match="chinchilla"):
        resolve_law("chinchila")


def test_what_n_counts_follows_the_law() -> None:
    assert resolve_law("besiroglu").count == "params_total"
    assert resolve_law("kaplan").count == "without_embeddings"
    assert resolve_law("deepseek").count == "without_embeddings"
    assert resolve_law("porian").count == "params"


def test_the_interval_of_anothers_law_is_at_least_eight_percent_either_way() -> None:
    for name in ("hoffmann", "besiroglu"):
        promise = resolve_law(name).loss(1e9, 2e10, 0.9)
        assert promise is not None
        assert promise.low <= promise.loss * np.exp(-1.645 * 0.05) * 1.001
        assert promise.high >= promise.loss * np.exp(1.645 * 0.05) * 0.999


def test_a_law_of_allocation_alone_takes_its_loss_from_the_default_and_says_so() -> None:
    law = resolve_law("llama-3")
    # Llama Team 2024, section 3.2.1: 402 billion on 16.55 trillion tokens, which is 3.99e25.
    assert law.optimal(3.8e25)[1] == pytest.approx(16.55e12, rel=0.01)
    promise, default = law.loss(4e11, 1.6e13, 0.9), resolve_law(None).loss(4e11, 1.6e13, 0.9)
    assert promise == default
    assert law.loss_count == resolve_law(None).count
    assert "no formula for the loss: the loss is that of besiroglu" in law.notes[-1]


def fixed_budgets() -> RunTable:
    """Six budgets, nine sizes each; equal exponents and A = B make N_opt = (C/6)^(1/2)."""
    grid = np.meshgrid(np.geomspace(0.25, 4.0, 9), np.geomspace(1e17, 1e20, 6))
    share, flops = (axis.ravel() for axis in grid)
    n = share * np.sqrt(flops / 6)
    noise = np.exp(2e-4 * np.random.default_rng(0).standard_normal(n.size))
    d = flops / 6 / n
    return RunTable.from_arrays(n, d, (1.7 + 400 * n**-0.3 + 400 * d**-0.3) * noise)


def test_a_frontier_plans_runs_of_about_the_best_size_and_promises_no_others(
    tmp_path: Path,
) -> None:
    fit_frontier(fixed_budgets()).save(tmp_path / "law.json")
    law = resolve_law(tmp_path / "law.json")
    params, tokens = law.optimal(6e20)
    assert params == pytest.approx(1e10, rel=0.05)
    promise = law.loss(params, tokens, 0.9)
    assert promise is not None
    truth = 1.7 + 800 * 1e10**-0.3
    assert promise.low < truth < promise.high
    assert law.loss(3 * params, tokens / 3, 0.9) is None


def test_an_isoflop_law_divides_and_takes_the_loss_from_the_default(tmp_path: Path) -> None:
    fit_isoflop(fixed_budgets(), bootstrap=60).save(tmp_path / "law.json")
    law = resolve_law(tmp_path / "law.json")
    assert law.optimal(6e20)[0] == pytest.approx(1e10, rel=0.1)
    assert law.own
    assert law.loss(1e10, 1e10, 0.9) == resolve_law("besiroglu").loss(1e10, 1e10, 0.9)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        resolve_law(tmp_path / "law.json")


def test_a_law_of_ones_own_counts_all_but_input_embeddings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 3e7, 4), np.geomspace(1e8, 3e9, 4)))
    loss = (1.7 + 200 * n**-0.34 + 400 * d**-0.3) * np.exp(0.001 * rng.standard_normal(n.size))
    law = fit(RunTable.from_arrays(n, d, loss), bootstrap=100)
    law.save(tmp_path / "law.json")
    found = resolve_law(tmp_path / "law.json")
    assert found.own
    assert found.count == "params"
    best = law.optimal(1e20)
    assert found.optimal(1e20) == pytest.approx((best.params, best.tokens))
    promise = found.loss(1e8, 1e10, 0.9)
    assert promise is not None
    assert promise.low < promise.loss < promise.high


def test_a_law_that_divides_no_budget_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"form": "loss-to-task"}))
    with pytest.raises(RecipeError, match="does not divide a budget"):
        resolve_law(path)
