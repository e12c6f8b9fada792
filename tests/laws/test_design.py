"""What a table determines, and whether the runs proposed are worth more than others."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import huber

from isoflop.core.errors import TableError
from isoflop.laws import RunTable, fit
from isoflop.laws.design import basins, correlations, next_runs, prior_effect, profile
from isoflop.laws.forms import Design, get_form
from isoflop.laws.interval import ROBUST, measure_noise, weak_prior
from isoflop.laws.records import select

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"
N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 6.4e7, 7), np.geomspace(1e8, 6.4e9, 7)))
LOSS = 1.7 + 200 * N**-0.34 + 400 * D**-0.3


def noisy(noise: float, seed: int = 0) -> RunTable:
    rng = np.random.default_rng(seed)
    return RunTable.from_arrays(N, D, LOSS * np.exp(noise * rng.standard_normal(N.size)))


def test_many_starts_agree_on_one_optimum() -> None:
    found = basins(noisy(2e-3))
    assert found.starts >= 12
    assert found.agreeing >= 0.75 * found.starts
    assert list(found.objective) == sorted(found.objective)


def test_a_profile_holds_the_planted_exponent_and_rises_on_both_sides() -> None:
    found = profile(noisy(1e-3), "gamma", "p")
    assert found.determined
    assert found.low < 0.34 < found.high
    assert min(found.drop) < 0.05
    assert found.drop[0] > 3.84 < found.drop[-1]


def _drop(table: RunTable, form: str, column: int, value: float | None) -> float:
    """Twice the negative log likelihood with one coordinate held, by scipy from its own starts."""
    chosen = get_form(form)
    design = Design.of(table.params, table.tokens)
    sigma = measure_noise(table, design, chosen).run_to_run
    prior = weak_prior(chosen, table, sigma)
    free = [i for i in range(chosen.size) if value is None or i != column]

    def objective(part: np.ndarray) -> float:
        theta = np.array(prior.centre)
        theta[free] = part
        if value is not None:
            theta[column] = math.log(value)
        off = chosen.log_loss(theta[None], design)[0] - np.log(table.loss)
        misfit = huber(ROBUST * sigma, off).sum()
        return 2 / sigma**2 * float(misfit + 0.5 * prior.precision @ (theta - prior.centre) ** 2)

    begin = [prior.centre[free] + shift for shift in (0.0, 0.2, -0.2)]
    tight = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-9}
    return min(
        minimize(
            objective, minimize(objective, start, method="BFGS").x, method="Nelder-Mead",
            options=tight,
        ).fun
        for start in begin
    )  # fmt: skip


@pytest.mark.parametrize(
    ("form", "parameter", "column"), [("gamma", "E", 0), ("chinchilla", "q", 4)]
)
def test_the_likelihood_at_a_limit_is_that_of_the_limit(
    form: str, parameter: str, column: int
) -> None:
    # Few runs and much noise: the profile is far from a parabola.
    table = select(noisy(6e-3), np.arange(0, 49, 3))
    found = profile(table, form, parameter)
    lowest = _drop(table, form, column, None)
    for limit in (found.low, found.high):
        assert _drop(table, form, column, limit) - lowest == pytest.approx(3.84, rel=0.01)


@pytest.mark.parametrize("parameter", ["E", "g"])
def test_25_points_give_the_limits_of_a_dense_scan(parameter: str) -> None:
    table = noisy(5e-4)  # limits half a per cent away: a scan over a factor 8 would step over them
    coarse, dense = (profile(table, "gamma", parameter, points) for points in (25, 121))
    assert math.log(coarse.low / coarse.best) == pytest.approx(
        math.log(dense.low / dense.best), rel=2e-3
    )
    assert math.log(coarse.high / coarse.best) == pytest.approx(
        math.log(dense.high / dense.best), rel=2e-3
    )


def test_a_limit_close_to_the_best_is_found_though_a_wide_scan_steps_over_it() -> None:
    path = SHARED / "chinchilla.csv"
    if not path.is_file():
        pytest.skip("no shared data")
    rows = [
        r
        for r in csv.DictReader(path.read_text().splitlines())
        if r["excluded_by_besiroglu"] != "1"
    ]
    table = RunTable.from_arrays(*([float(r[c]) for r in rows] for c in ("N", "D", "loss")))
    found = profile(table, "gamma", "E")  # E cannot pass the lowest loss, a fifth above its best
    assert found.determined
    assert found.high / found.best < 1.05 > found.best / found.low


def test_a_profile_of_few_noisy_runs_is_flatter() -> None:
    few = select(noisy(1e-2), np.arange(0, 49, 4))
    wide, narrow = profile(few, "gamma", "E"), profile(noisy(1e-3), "gamma", "E")
    assert np.log(wide.high / wide.low) > 2 * np.log(narrow.high / narrow.low)


def test_forms_without_a_parameter_have_no_profile_of_it() -> None:
    with pytest.raises(TableError, match="no profile of 'g'"):
        profile(noisy(1e-3), "chinchilla", "g")
    with pytest.raises(TableError, match="no profile of 'E'"):
        profile(noisy(1e-3), "kaplan-nd", "E")


def test_a_coefficient_and_its_exponent_stand_for_one_another() -> None:
    found = correlations(fit(noisy(3e-3), bootstrap=200))
    at = found.parameters.index
    matrix = np.array(found.matrix)
    np.testing.assert_allclose(matrix, matrix.T)
    assert matrix[at("A"), at("alpha")] > 0.95
    assert matrix[at("B"), at("beta")] > 0.95


def test_beliefs_matter_to_few_runs_and_hardly_to_many() -> None:
    few = select(noisy(1e-2), np.arange(0, 49, 6))
    small, large = (
        abs(prior_effect(t, 2e8, 2e10, "gamma", bootstrap=100).percent) for t in (noisy(1e-3), few)
    )
    assert small < 0.3
    assert small < large


@pytest.mark.parametrize("known", [True, False])
def test_a_dozen_runs_hold_three_sizes_and_three_horizons(known: bool) -> None:
    law = fit(noisy(2e-3), form="gamma", bootstrap=200) if known else None
    chosen = next_runs(law, N, D, (2e8, 2e10), 12)
    assert len({(r.params, r.tokens) for r in chosen}) == 12
    assert len({r.params for r in chosen}) >= 3
    assert len({r.tokens for r in chosen}) >= 3
    assert 0.0 < sum(r.gain for r in chosen) <= 1.0 + 1e-9


def test_three_runs_are_spread_over_three_sizes_and_three_horizons() -> None:
    chosen = next_runs(None, N, D, (2e8, 2e10), 3)
    assert len({r.params for r in chosen}) == len({r.tokens for r in chosen}) == 3


def test_thrift_buys_the_same_number_of_runs_for_less() -> None:
    lavish, thrifty = (
        sum(r.flops for r in next_runs(None, N, D, (2e8, 2e10), 8, thrift=t)) for t in (0.0, 1.0)
    )
    assert thrifty < 0.5 * lavish


def test_candidates_of_different_lengths_are_refused() -> None:
    with pytest.raises(TableError, match="2 sizes and 1 horizons"):
        next_runs(None, [1e6, 2e6], [1e8], (1e9, 1e10))


def errors(
    pool: RunTable, goal: RunTable, chosen: np.ndarray, count: int, trials: int, form: str = "gamma"
) -> tuple[float, float]:
    """Median error of ln loss with the chosen runs, and over random draws of `count` runs."""

    def error(rows: np.ndarray) -> float:
        law = fit(select(pool, rows), form=form, bootstrap=100)
        return float(
            np.median(
                [
                    abs(np.log(law.predict(n, d).loss / loss))
                    for n, d, loss in zip(goal.params, goal.tokens, goal.loss, strict=True)
                ]
            )
        )

    rng = np.random.default_rng(0)
    random = []
    while len(random) < trials:
        rows = rng.choice(len(pool), count, replace=False)
        if len(np.unique(pool.params[rows])) > 2 and len(np.unique(pool.tokens[rows])) > 2:
            random.append(error(rows))
    return error(chosen), float(np.median(random))


def choose(pool: RunTable, goal: tuple[float, float], count: int) -> np.ndarray:
    """Row numbers of the runs proposed before any run was made."""
    picked = next_runs(None, pool.params, pool.tokens, goal, count)
    return np.array(
        [
            int(np.flatnonzero((pool.params == r.params) & (pool.tokens == r.tokens))[0])
            for r in picked
        ]
    )


def truth(form: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    if form == "additive":
        return lambda n, d: 1.7 + 200 * n**-0.34 + 400 * d**-0.3
    return lambda n, d: 1.7 + (9e3 * n**-0.55 + 3e4 * d**-0.5) ** 0.62


def simulated(form: str, worlds: int, trials: int) -> tuple[float, float]:
    """Mean errors of 12 chosen and 20 random runs over simulated tables."""
    pairs = []
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 6e7, 10), np.geomspace(1e8, 6e9, 10)))
    for world in range(worlds):
        rng = np.random.default_rng(world)
        law = truth(form)
        pool = RunTable.from_arrays(n, d, law(n, d) * np.exp(3e-3 * rng.standard_normal(n.size)))
        far_n, far_d = np.array([2e8]), np.array([2e10])
        goal = RunTable.from_arrays(far_n, far_d, law(far_n, far_d))
        pairs.append(errors(pool, goal, choose(pool, (2e8, 2e10), 12), 20, trials))
    mean = np.mean(pairs, axis=0)
    return float(mean[0]), float(mean[1])


def test_twelve_chosen_runs_are_worth_twenty_random_ones() -> None:
    chosen, random = simulated("additive", worlds=2, trials=3)
    assert chosen <= 1.15 * random


@pytest.mark.slow
@pytest.mark.parametrize("form", ["additive", "gamma"])
def test_twelve_chosen_runs_are_worth_twenty_random_ones_in_many_worlds(form: str) -> None:
    chosen, random = simulated(form, worlds=20, trials=10)
    assert chosen <= random


@pytest.mark.slow
@pytest.mark.parametrize("file", ["chinchilla.csv", "oellm_best_hp.csv"])
def test_twelve_chosen_runs_of_a_public_table_are_worth_twenty_random_ones(file: str) -> None:
    path = SHARED / file
    if not path.exists():
        pytest.skip("the shared data are not here")
    with open(path, newline="") as handle:
        rows = [r for r in csv.DictReader(handle) if r.get("excluded_by_besiroglu") != "1"]
    table = RunTable.from_arrays(*([float(r[k]) for r in rows] for k in ("N", "D", "loss")))
    compute = table.params * table.tokens
    small = compute <= compute.max() / 10
    pool, goal = select(table, small), select(table, ~small)
    middle = float(np.exp(np.log(goal.params).mean())), float(np.exp(np.log(goal.tokens).mean()))
    chosen, random = errors(pool, goal, choose(pool, middle, 12), 20, 25, "auto")
    assert chosen <= random
