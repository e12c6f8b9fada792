"""The frontier through IsoFLOP minima: planted truth, promises, its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import RunTable
from isoflop.laws.frontier import FrontierLaw, fit_frontier, from_document

ALPHA, BETA = 0.34, 0.28


def lowest(flops: float) -> tuple[float, float, float]:
    """N, D and the loss at the optimum of Hoffmann's law (their eq. 4)."""
    g = (ALPHA * 406.4 / (BETA * 410.7)) ** (1 / (ALPHA + BETA))
    n = g * (flops / 6) ** (BETA / (ALPHA + BETA))
    d = flops / (6 * n)
    return n, d, 1.69 + 406.4 * n**-ALPHA + 410.7 * d**-BETA


def budgets(largest: float, count: int, noise: float = 1e-3) -> RunTable:
    rng = np.random.default_rng(count)
    rows = []
    for flops in np.geomspace(1e18, largest, count):
        for n in lowest(flops)[0] * np.geomspace(0.3, 3.3, 9):
            loss = 1.69 + 406.4 * n**-ALPHA + 410.7 * (flops / (6 * n)) ** -BETA
            rows.append((n, flops / (6 * n), loss * np.exp(noise * rng.standard_normal())))
    return RunTable.from_arrays(*np.array(rows).T)


@pytest.fixture(scope="module")
def law() -> FrontierLaw:
    return fit_frontier(budgets(1e20, 7), bootstrap=400)


@pytest.mark.parametrize("factor", [10.0, 30.0])
def test_compute_optimal_losses_beyond_the_table_are_foretold(
    law: FrontierLaw, factor: float
) -> None:
    promise, truth = law.predict(1e20 * factor), lowest(1e20 * factor)[2]
    assert promise.loss == pytest.approx(truth, rel=0.01)
    assert promise.low < truth < promise.high
    assert promise.extrapolation["flops"] == pytest.approx(factor)


def test_intervals_widen_with_distance_and_level(law: FrontierLaw) -> None:
    widths = [law.predict(c).high - law.predict(c).low for c in (1e20, 1e21, 1e22)]
    assert widths == sorted(widths)
    narrow, wide = law.predict(1e21, 0.5), law.predict(1e21, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_optimum_is_that_of_the_planted_law(law: FrontierLaw) -> None:
    best = law.optimal(1e21)
    assert best.params == pytest.approx(lowest(1e21)[0], rel=0.2)
    assert 6 * best.params * best.tokens == pytest.approx(1e21)
    assert best.exponents["a"] == pytest.approx(BETA / (ALPHA + BETA), abs=0.03)


def test_a_frontier_reads_back_and_says_the_same(law: FrontierLaw, tmp_path: Path) -> None:
    law.save(tmp_path / "law.json")
    again = from_document(json.loads((tmp_path / "law.json").read_text()))
    assert again.form == "frontier"
    for name, value in vars(law.predict(1e21)).items():
        assert vars(again.predict(1e21))[name] == pytest.approx(value, rel=1e-4)


def test_three_budgets_are_unsupported_and_the_next_slice_is_named() -> None:
    found = fit_frontier(budgets(1e19, 3), bootstrap=100)
    assert found.verdict.startswith("unsupported: 3 budgets")
    assert "slice that would help most" in found.verdict


def test_a_table_without_slices_is_refused() -> None:
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(16, 22, 20)), np.exp(rng.uniform(20, 26, 20))
    with pytest.raises(TableError, match="equal compute"):
        fit_frontier(RunTable.from_arrays(n, d, 1.7 + 300 * n**-0.35 + 500 * d**-0.35))


def test_impossible_budgets_and_levels_are_refused(law: FrontierLaw) -> None:
    with pytest.raises(TableError, match="flops must be positive"):
        law.predict(0.0)
    with pytest.raises(TableError, match="between 0 and 1"):
        law.predict(1e20, level=90)


def test_standard_errors_stay_within_what_the_budgets_say(law: FrontierLaw) -> None:
    """A, the loss above E at one FLOP, is known to a factor at best; height and slope at the
    largest budget are known well, and the warning says so."""
    assert law.stderr["A"] < 20 * law.parameters["A"]
    said = law.warnings[-1]
    assert "known together better than alone" in said
    height = float(said.split("lowest loss is ")[1].split(" ")[0])
    assert height == pytest.approx(lowest(1e20)[2], rel=0.005)


def test_the_best_size_has_an_interval_that_holds_the_planted_one(law: FrontierLaw) -> None:
    near, far = law.optimal(1e20), law.optimal(1e22)
    for best in (near, far):
        assert best.params_ends is not None
        assert best.params_ends[0] < lowest(best.flops)[0] < best.params_ends[1]
    low, high = np.log(near.params_ends or (1, 1))
    lower, higher = np.log(far.params_ends or (1, 1))
    assert higher - lower > high - low
