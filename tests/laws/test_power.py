"""Power laws of one variable: planted truths, the envelope, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import RunTable, read_table
from isoflop.laws.power import PowerLaw, fit_power

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"
NOISE = 0.002


def planted(floor: float, count: int = 12, seed: int = 0, top: float = 1e9) -> RunTable:
    params = np.geomspace(1e6, top, count)
    loss = floor + (1e9 / params) ** 0.3 if floor else (8.8e13 / params) ** 0.076
    noise = np.exp(NOISE * np.random.default_rng(seed).standard_normal(count))
    return RunTable.from_arrays(params, np.full(count, 1e12), loss * noise)


@pytest.mark.parametrize("objective", ["huber", "lad", "lsq"])
@pytest.mark.parametrize("floor", [0.0, 1.7])
def test_the_planted_law_is_found_and_the_comparison_knows_of_its_floor(
    floor: float, objective: str
) -> None:
    law = fit_power(planted(floor), "kaplan-n", objective, bootstrap=100)  # type: ignore[arg-type]
    assert (law.parameters["E"] > 0.0) == (floor > 0.0)
    assert law.parameters["E"] == pytest.approx(floor, abs=0.1)
    assert law.parameters["alpha_N"] == pytest.approx(0.3 if floor else 0.076, rel=0.02)
    assert law.supported


def test_without_noise_kaplans_constants_come_back_exactly() -> None:
    params = np.geomspace(1e6, 1e9, 8)
    table = RunTable.from_arrays(params, np.full(8, 1e12), (8.8e13 / params) ** 0.076)
    law = fit_power(table, "kaplan-n", "lsq", floor="none", bootstrap=100)
    assert law.parameters["N_c"] == pytest.approx(8.8e13, rel=1e-3)
    assert law.parameters["alpha_N"] == pytest.approx(0.076, rel=1e-4)
    assert law.formula == "(N_c/N)^alpha_N"


def test_intervals_hold_the_truth_at_ten_times_the_size_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(30):
        promise = fit_power(planted(1.7, seed=seed), "kaplan-n", bootstrap=200).predict(1e10)
        held += promise.low <= 1.7 + 0.1**0.3 <= promise.high
        assert promise.extrapolation == {"params": pytest.approx(10.0)}
    assert held >= 24  # 27 expected; fewer than 24 by chance in 1 of 40 worlds


def test_every_axis_takes_its_own_variable() -> None:
    values = np.geomspace(1e18, 1e21, 10)
    loss = 1.5 + (1e19 / values) ** 0.15
    table = RunTable.from_arrays(np.sqrt(values / 120), np.sqrt(values / 0.3), loss, flops=values)
    law = fit_power(table, "kaplan-c", "lsq", bootstrap=100)
    expected = 1.5 + (1e19 / 1e22) ** 0.15
    assert law.predict(flops=1e22).loss == pytest.approx(expected, rel=0.01)
    assert law.predict(1e10, 1e22 / 6e10).loss == law.predict(flops=1e22).loss
    with pytest.raises(TableError, match="needs flops"):
        law.predict(params=1e9)
    with pytest.raises(TableError, match="must be positive"):
        law.predict(flops=-1.0)


def test_of_a_grid_the_lower_envelope_is_used_and_said() -> None:
    params, tokens = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e10, 5))
    )
    loss = 1.8 + 480.0 / params**0.35 + 2100.0 / tokens**0.37
    table = RunTable.from_arrays(params, tokens, loss)
    by_size = fit_power(table, "kaplan-n", bootstrap=100)
    assert by_size.n_runs == 6
    said = " ".join(by_size.warnings)
    assert "the other 24 runs were left out" in said
    assert "more data would still have lowered the loss of 6 of the 6" in said
    by_compute = fit_power(table, "kaplan-c", bootstrap=100)
    order = np.argsort(table.flops)
    frontier = np.minimum.accumulate(table.loss[order])
    assert by_compute.n_runs <= int(np.sum(np.diff(frontier) < 0)) + 1


def test_a_second_variable_that_varies_is_questioned() -> None:
    params = np.geomspace(1e6, 1e9, 8)
    table = RunTable.from_arrays(params, 20 * params, (8.8e13 / params) ** 0.076)
    assert any("tokens vary" in w for w in fit_power(table, "kaplan-n", bootstrap=100).warnings)


def test_where_runs_do_not_tell_of_a_floor_the_intervals_take_both() -> None:
    table = planted(0.0, count=6, seed=1)
    compared = fit_power(table, "kaplan-n", bootstrap=400)
    alone = fit_power(table, "kaplan-n", floor="none", bootstrap=400)
    assert any("do not tell whether there is a floor" in w for w in compared.warnings)
    widths = [p.high - p.low for p in (compared.predict(1e11), alone.predict(1e11))]
    assert widths[0] > widths[1]


def test_too_little_is_refused_and_a_short_range_is_unsupported() -> None:
    with pytest.raises(TableError, match="3 distinct values of params"):
        fit_power(planted(1.7, count=3), "kaplan-n")
    assert "less than ten" in fit_power(planted(1.7, top=5e6), "kaplan-n", bootstrap=100).verdict
    with pytest.raises(TableError, match="no form 'kaplan-x'"):
        fit_power(planted(1.7), "kaplan-x")  # type: ignore[arg-type]


def test_the_document_comes_back_as_the_same_law(tmp_path: Path) -> None:
    law = fit_power(planted(1.7), "kaplan-n", bootstrap=100)
    law.save(tmp_path / "law.json")
    again = PowerLaw.from_document(law.to_dict())
    assert again.predict(1e10).loss == law.predict(1e10).loss
    assert again.predict(1e10).low == pytest.approx(law.predict(1e10).low, rel=1e-6)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared tables are not here")
def test_chinchillas_frontier_in_compute_extrapolates_to_its_own_largest_runs() -> None:
    table = read_table(SHARED / "chinchilla.csv", {"params": "N", "tokens": "D", "flops": "C"})
    from isoflop.laws.records import select

    law = fit_power(select(table, table.flops < 3e20), "kaplan-c", bootstrap=100)
    best = table.loss[table.flops > 2.5e21].min()
    flops = float(table.flops[table.loss == best][0])
    assert law.predict(flops=flops).loss == pytest.approx(best, rel=0.015)
