"""Fits against published figures, planted truth and each other."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import Law, RunTable, fit
from isoflop.laws.fit import Objective, fit_point
from isoflop.laws.forms import CHINCHILLA, Design

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"
NAMES = ("E", "A", "B", "alpha", "beta")
# Data README: the optimum of each objective over the 240 rows.
PUBLISHED: dict[Objective, tuple[float, ...]] = {
    "huber": (1.81722, 477.845, 2143.36, 0.347313, 0.367171),
    "lad": (1.81686, 482.00, 2085.4, 0.347812, 0.365853),
    "lsq": (1.86455, 593.3, 4875.6, 0.36025, 0.40588),
}
# Bootstrap standard errors; A and B are given as ranges there.
STDERR = {"E": (0.025,), "A": (119.0, 125.0), "B": (1290.0, 1450.0), "alpha": (0.015,)}


@pytest.fixture(scope="module")
def chinchilla() -> RunTable:
    path = SHARED / "chinchilla.csv"
    if not path.exists():
        pytest.skip("the shared data are not here")
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["excluded_by_besiroglu"] != "1"]
    assert len(rows) == 240
    columns = ([float(row[name]) for row in rows] for name in ("N", "D", "loss"))
    return RunTable.from_arrays(*columns)


def ladder(
    loss_noise: float = 0.0, seed: int = 0, sizes: int = 4, horizons: int = 3
) -> tuple[RunTable, tuple[float, ...]]:
    truth = (1.7, 40.0, 300.0, 0.35, 0.4)
    n, d = (
        axis.ravel()
        for axis in np.meshgrid(np.geomspace(3e4, 2.4e5, sizes), np.geomspace(3e5, 2.4e6, horizons))
    )
    loss = truth[0] + truth[1] * n ** -truth[3] + truth[2] * d ** -truth[4]
    noise = np.random.default_rng(seed).standard_normal(n.size)
    return RunTable.from_arrays(n, d, loss * np.exp(loss_noise * noise)), truth


@pytest.mark.parametrize("objective", list(PUBLISHED))
def test_each_objective_reproduces_its_published_optimum(
    chinchilla: RunTable, objective: Objective
) -> None:
    design = Design.of(chinchilla.params, chinchilla.tokens)
    found = fit_point(chinchilla, CHINCHILLA, objective, design, sigma=0.005)
    printed = CHINCHILLA.to_printed(found.theta, design)[0]
    np.testing.assert_allclose(printed, PUBLISHED[objective], rtol=2e-4)
    if objective == "huber":
        assert found.objective[0] == pytest.approx(0.00101827402, rel=1e-7)


def test_bootstrap_standard_errors_are_the_published_ones(chinchilla: RunTable) -> None:
    law = fit(chinchilla, bootstrap=2500)
    for name, ends in STDERR.items():
        assert 0.9 * ends[0] <= law.stderr[name] <= 1.1 * ends[-1], name
    assert law.stderr["beta"] == pytest.approx(0.0205, rel=0.1)
    assert law.supported


def test_every_basin_of_the_grid_agrees_on_the_optimum(chinchilla: RunTable) -> None:
    design = Design.of(chinchilla.params, chinchilla.tokens)
    few = fit_point(chinchilla, CHINCHILLA, "huber", design, sigma=0.005, basins=2)
    many = fit_point(chinchilla, CHINCHILLA, "huber", design, sigma=0.005, basins=30)
    assert few.objective[0] == pytest.approx(many.objective[0], rel=1e-9)


@pytest.mark.parametrize("objective", ["huber", "lad", "lsq"])
def test_runs_without_noise_give_their_law_back(objective: Objective) -> None:
    table, truth = ladder()
    law = fit(table, objective=objective, bootstrap=100)
    assert law.supported, law.verdict
    np.testing.assert_allclose(list(law.parameters.values()), truth, rtol=2e-3)


def test_the_gamma_form_recovers_a_planted_combination() -> None:
    n, d = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 8))
    )
    loss = 1.7 + (300.0 * n**-0.5 + 4000.0 * d**-0.5) ** 0.6
    noise = 1e-4 * np.random.default_rng(1).standard_normal(n.size)
    law = fit(RunTable.from_arrays(n, d, loss * np.exp(noise)), form="gamma", bootstrap=100)
    assert law.parameters["g"] == pytest.approx(0.6, rel=0.03)
    assert law.parameters["E"] == pytest.approx(1.7, rel=0.01)


def test_the_same_seed_gives_the_same_law() -> None:
    table, _ = ladder(2e-3)
    assert fit(table, seed=3).to_dict() == fit(table, seed=3).to_dict()


def test_weights_count_runs() -> None:
    table, _ = ladder(2e-3)
    weight = np.where(np.arange(len(table)) == 4, 2.0, 1.0)
    weighted = RunTable.from_arrays(table.params, table.tokens, table.loss, weight=weight)
    again = [*range(len(table)), 4]
    doubled = RunTable.from_arrays(table.params[again], table.tokens[again], table.loss[again])
    one, two = (fit(t, objective="lsq", bootstrap=100).parameters for t in (weighted, doubled))
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-3)


@pytest.mark.parametrize("count", range(7, 15))
def test_ten_or_so_runs_always_give_a_finite_promise(count: int) -> None:
    table, _ = ladder(3e-3, seed=count, sizes=4, horizons=4)
    pick = np.random.default_rng(count).permutation(len(table))[:count]
    small = RunTable.from_arrays(table.params[pick], table.tokens[pick], table.loss[pick])
    for form in ("chinchilla", "gamma"):
        law: Law = fit(small, form=form, bootstrap=200)
        promise = law.predict(8e5, 8e6)
        assert 0.0 < promise.low <= promise.loss <= promise.high < 10.0
        assert all(np.isfinite(v) for v in law.stderr.values())


def test_one_diverged_run_hardly_moves_the_forecast() -> None:
    table, truth = ladder(1e-3)
    loss = table.loss.copy()
    loss[5] *= 1.3
    law = fit(RunTable.from_arrays(table.params, table.tokens, loss), form="gamma")
    target = truth[0] + truth[1] * 8e5 ** -truth[3] + truth[2] * 8e6 ** -truth[4]
    assert law.predict(8e5, 8e6).loss == pytest.approx(target, rel=0.03)
    assert any("row 5" in warning for warning in law.warnings)


def test_fewer_runs_than_parameters_are_refused() -> None:
    with pytest.raises(TableError, match="4 usable runs cannot determine the 5 parameters"):
        fit(RunTable.from_arrays([1e6, 2e6, 1e6, 2e6], [1e8, 1e8, 2e8, 2e8], [4, 3.8, 3.9, 3.7]))


def test_one_size_only_is_refused_with_the_way_out() -> None:
    table = RunTable.from_arrays([1e6] * 6, np.geomspace(1e8, 1e9, 6), np.linspace(4, 3, 6))
    with pytest.raises(TableError, match=r"same size.*at least 3 sizes"):
        fit(table)


def test_impossible_arguments_are_refused() -> None:
    table, _ = ladder()
    with pytest.raises(TableError, match="Choose one of huber, lad, lsq"):
        fit(table, objective="l2")  # type: ignore[arg-type]
    with pytest.raises(TableError, match="at least 100"):
        fit(table, bootstrap=3)
