"""Laws as documents: forecasts, optima, law.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws import Law, RunTable, fit, load_law
from isoflop.laws.forms import printed_loss

CONTRACT = {
    *("form", "formula", "parameters", "stderr", "draws", "noise", "objective", "n_runs"),
    *("domain", "source", "warnings", "verdict", "sha256"),
}


@pytest.fixture(scope="module", params=["chinchilla", "gamma"])
def law(request: pytest.FixtureRequest) -> Law:
    rng = np.random.default_rng(0)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 8e6, 4), np.geomspace(1e8, 8e8, 3)))
    loss = (1.7 + 200 * n**-0.34 + 400 * d**-0.3) * np.exp(0.001 * rng.standard_normal(n.size))
    return fit(RunTable.from_arrays(n, d, loss), form=request.param, bootstrap=200)


def test_the_optimum_is_where_a_search_over_sizes_finds_the_lowest_loss(law: Law) -> None:
    flops = 1e18
    values = np.array([list(law.parameters.values())])

    def loss(ln_n: float) -> float:
        return float(printed_loss(values, np.exp(ln_n), flops / 6 / np.exp(ln_n))[0])

    found = minimize_scalar(loss, bounds=(np.log(1e5), np.log(1e12)), method="bounded")
    best = law.optimal(flops)
    assert best.params == pytest.approx(float(np.exp(found.x)), rel=1e-2)
    assert best.loss.loss <= found.fun + 1e-12
    assert 6 * best.params * best.tokens == pytest.approx(flops, rel=1e-12)


def test_the_best_size_lies_between_its_ends_which_part_with_distance(law: Law) -> None:
    planted = (0.34 * 200 / (0.3 * 400)) ** (1 / 0.64)
    widths = []
    for flops in (1e16, 1e18, 1e20):
        best = law.optimal(flops)
        assert best.params_ends is not None
        low, high = best.params_ends
        assert low < planted * (flops / 6) ** (0.3 / 0.64) < high
        widths.append(high / low)
    assert widths == sorted(widths)


def test_exponents_say_how_the_optimum_moves(law: Law) -> None:
    one, hundred = law.optimal(1e18), law.optimal(1e20)
    assert hundred.params / one.params == pytest.approx(100 ** one.exponents["a"], rel=1e-9)
    assert hundred.tokens / one.tokens == pytest.approx(100 ** one.exponents["b"], rel=1e-9)
    assert one.exponents["a"] + one.exponents["b"] == pytest.approx(1.0)


def test_hoffmanns_law_gives_their_optimum_for_chinchillas_budget(law: Law) -> None:
    printed = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
    theirs = Law(**{**vars(law), "form": "chinchilla", "parameters": printed})
    best = theirs.optimal(5.76e23)
    # Hoffmann et al. 2022, eq. 4 and 10, by hand: G = (αA/βB)^(1/(α+β)) = 1.3447.
    assert best.exponents["a"] == pytest.approx(0.28 / 0.62)
    assert best.params == pytest.approx(1.3447 * (5.76e23 / 6) ** (0.28 / 0.62), rel=1e-3)


def test_law_json_holds_exactly_the_contract_and_reads_back(law: Law, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    law.save(path)
    raw = json.loads(path.read_text())
    assert set(raw) == CONTRACT
    assert set(raw["domain"]) == {"params", "tokens", "flops"}
    assert len(raw["draws"]) == 200
    assert all(len(row) == len(raw["parameters"]) for row in raw["draws"])
    again = load_law(path)
    for name, value in vars(law.predict(1e8, 1e10)).items():
        assert vars(again.predict(1e8, 1e10))[name] == pytest.approx(value, rel=1e-6)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_promise_lies_in_its_interval_and_says_how_far_it_reaches(law: Law) -> None:
    promise = law.predict(1.6e7, 4e8)
    assert promise.low <= promise.loss <= promise.high
    assert set(promise.to_dict()) == {"loss", "low", "high", "level", "extrapolation"}
    assert promise.extrapolation == pytest.approx({"params": 2.0, "tokens": 1.0, "flops": 1.0})
    assert law.predict(1e5, 1e8).extrapolation["params"] == pytest.approx(10.0)


@pytest.mark.parametrize("arguments", [(-1.0, 1e9), (1e6, 0.0), (1e6, float("nan"))])
def test_impossible_runs_are_refused(law: Law, arguments: tuple[float, float]) -> None:
    with pytest.raises(TableError, match="must be positive"):
        law.predict(*arguments)


def test_impossible_levels_and_budgets_are_refused(law: Law) -> None:
    with pytest.raises(TableError, match="between 0 and 1"):
        law.predict(1e6, 1e9, level=90)
    with pytest.raises(TableError, match="flops must be positive"):
        law.optimal(-1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a law"),
        ('{"form": "chinchilla"}', "it has no formula"),
        ("{", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_law_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        load_law(path)


def test_a_damaged_law_is_an_error(law: Law, tmp_path: Path) -> None:
    raw = {**law.to_dict(), "noise": {"run_to_run": 0.1}}
    path = tmp_path / "law.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_law(path)


def test_distances_do_not_depend_on_how_a_table_counts_flops() -> None:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 8e6, 4), np.geomspace(1e8, 8e8, 3)))
    loss = 1.7 + 200 * n**-0.34 + 400 * d**-0.3
    table = RunTable.from_arrays(n, d, loss, flops=15 * n * d)
    assert any("not within a factor 2" in note for note in table.notes)
    promise = fit(table, form="gamma", bootstrap=100).predict(1.6e7, 1.6e9)
    assert promise.extrapolation["flops"] == pytest.approx(4.0)
