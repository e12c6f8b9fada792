"""Best learning rate and batch: published coefficients, planted valleys, what a choice loses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.hyperparameters import (
    fit_optima,
    fit_sweep,
    from_document,
    published_law,
)

LAWS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"
needs_data = pytest.mark.skipif(not LAWS.is_dir(), reason="the shared data are absent")


def _rows(name: str) -> list[dict[str, str]]:
    with open(LAWS / name, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _planted(noise: float, batch: bool) -> dict[str, np.ndarray]:
    """lr = 0.5 N^-0.4 D^0.1, batch = 50 N^0.1 D^0.4 and a tilted valley around them."""
    rng = np.random.default_rng(3)
    bend = np.array([[0.03, 0.008], [0.008, 0.012]])
    rows = []
    for n in (1e7, 3e7, 1e8, 3e8):
        for d in (1e9, 4e9, 1.6e10):
            middle = np.log([0.5 * n**-0.4 * d**0.1, 50.0 * n**0.1 * d**0.4])
            shift = rng.uniform(-0.5, 0.5, 2)  # the grid is not centred on the optimum
            for step in (-1.0, -0.5, 0.0, 0.5, 1.0):
                for wide in (-0.7, 0.0, 0.7) if batch else (0.0,):
                    off = shift * [1.0, float(batch)] + [step, wide]
                    level = 1.8 + 400 * n**-0.34 + 400 * d**-0.3
                    loss = level * np.exp(0.5 * off @ bend @ off + noise * rng.standard_normal())
                    rows.append([n, d, loss, *np.exp(middle + off)])
    names = ("params", "tokens", "loss", "learning_rate", "batch_tokens")
    table = dict(zip(names, np.array(rows).T, strict=True))
    return table if batch else {k: v for k, v in table.items() if k != "batch_tokens"}


@needs_data
def test_the_published_optima_of_openeurollm_give_their_coefficients() -> None:
    rows = [row for row in _rows("oellm_best_hp.csv") if row["heldout"] == "0"]
    columns = (_column(rows, name) for name in ("N", "D", "lr", "batch_seqs"))
    law = fit_optima(*columns, bootstrap=50)
    assert law.parameters["lr_0"] == pytest.approx(0.371396, rel=1e-4)
    assert law.parameters["lr_N"] == pytest.approx(-0.4171, abs=1e-4)
    assert law.parameters["lr_D"] == pytest.approx(0.0862, abs=1e-4)
    assert law.parameters["batch_0"] == pytest.approx(9.901e-5, rel=1e-3)
    assert law.parameters["batch_N"] == pytest.approx(0.1451, abs=1e-4)
    assert law.parameters["batch_D"] == pytest.approx(0.4600, abs=1e-4)


@pytest.mark.parametrize("batch", [False, True])
def test_a_planted_valley_is_recovered(batch: bool) -> None:
    law = fit_sweep(**_planted(1e-5, batch), bootstrap=100)
    assert law.verdict == "supported"
    assert law.parameters["lr_N"] == pytest.approx(-0.4, abs=0.01)
    assert law.parameters["lr_D"] == pytest.approx(0.1, abs=0.01)
    predicted = law.predict(1e9, 5e10)
    assert predicted.learning_rate.best.value == pytest.approx(
        0.5 * 1e9**-0.4 * 5e10**0.1, rel=0.02
    )
    assert law.noise["curvature"][0][0] == pytest.approx(0.03, rel=0.02)
    if batch:
        assert predicted.batch_tokens is not None
        assert predicted.batch_tokens.best.value == pytest.approx(
            50 * 1e9**0.1 * 5e10**0.4, rel=0.03
        )
        assert law.noise["curvature"][0][1] == pytest.approx(0.008, rel=0.05)
    else:
        assert predicted.batch_tokens is None


def test_the_basin_ends_where_a_quarter_percent_is_lost() -> None:
    law = fit_sweep(**_planted(0.0, False), bootstrap=50)
    choice = law.predict(1e8, 4e9).learning_rate
    assert choice.basin is not None
    for end in choice.basin:
        assert 0.5 * 0.03 * np.log(end / choice.best.value) ** 2 == pytest.approx(0.0025, rel=0.03)


def test_intervals_hold_the_planted_optimum_about_as_often_as_they_say() -> None:
    truth = 0.5 * 1e9**-0.4 * 5e10**0.1
    held = 0
    for seed in range(40):
        table = _planted(0.0, False)
        rng = np.random.default_rng(seed)
        table["loss"] = table["loss"] * np.exp(0.002 * rng.standard_normal(len(table["loss"])))
        best = fit_sweep(**table, bootstrap=60, seed=seed).predict(1e9, 5e10).learning_rate.best
        held += best.low <= truth <= best.high
    assert 32 <= held <= 40  # of 40 at 90 %


def _moving(power: float) -> dict[str, np.ndarray]:
    table = _planted(1e-5, False)
    middle = 1e-3 * (table["params"] / 1e8) ** power
    spread = np.tile([-1.0, -0.5, 0.0, 0.5, 1.0], 12)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(60)
    return table | {
        "learning_rate": middle * np.exp(spread),
        "loss": 3.0 * np.exp(0.015 * spread**2 + noise),
    }


def test_it_says_when_carrying_the_small_optimum_over_is_as_good() -> None:
    still, moving = (fit_sweep(**_moving(power), bootstrap=50) for power in (0.0, -0.6))
    assert still.noise["transfer"]["carry_is_as_good"]
    assert "is as good" in still.warnings[0]
    assert not moving.noise["transfer"]["carry_is_as_good"]
    # One setting lies above a third of the largest compute; the next below it is 3 times smaller.
    lost = 100 * 0.015 * (0.6 * np.log(3.0)) ** 2
    assert moving.noise["transfer"]["carry"] == pytest.approx(lost, rel=0.05)
    assert moving.warnings == ()


@needs_data
def test_the_learning_rate_from_a_third_of_the_compute_loses_a_fifth_of_a_percent() -> None:
    rows = _rows("misfitting_dense_lr_sweep.csv")
    compute = _column(rows, "C")
    small = [row for row in rows if float(row["C"]) <= compute.max() / 3]
    columns = (_column(small, name) for name in ("N_non_embedding", "D", "loss", "lr"))
    law = fit_sweep(*columns, bootstrap=50)
    large = [row for row in rows if float(row["C"]) == compute.max()]
    order = np.argsort(_column(large, "lr"))
    tried, loss = np.log(_column(large, "lr"))[order], np.log(_column(large, "loss"))[order]
    target = (float(large[0]["N_non_embedding"]), float(large[0]["D"]))
    chosen = np.log(law.predict(*target).learning_rate.best.value)
    lost = np.interp(chosen, tried, loss) - loss.min()  # between the measured neighbours
    assert 100 * lost <= 0.2


def test_a_law_of_compute_alone_moves_with_compute_alone() -> None:
    table = _planted(1e-5, False)
    law = fit_sweep(**table, of="flops", bootstrap=50)
    assert set(law.parameters) == {"lr_0", "lr_C"}
    one, other = law.predict(1e8, 1e10), law.predict(1e9, 1e9)
    assert one.learning_rate.best.value == pytest.approx(other.learning_rate.best.value)


def test_published_laws_give_their_formulas() -> None:
    deepseek = published_law("deepseek").predict(1e9, 1e11)
    compute = 6e20
    assert deepseek.learning_rate.best.value == pytest.approx(0.3118 * compute**-0.1250)
    assert deepseek.batch_tokens is not None
    assert deepseek.batch_tokens.best.value == pytest.approx(0.2920 * compute**0.3271)
    step = published_law("step-law").predict(1e9, 1e11)
    assert step.learning_rate.best.value == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307)
    assert step.batch_tokens is not None
    assert step.batch_tokens.best.value == pytest.approx(0.58 * 1e11**0.571)
    with pytest.raises(TableError, match="no published"):
        published_law("alchemy")


def test_a_choice_says_how_far_it_reaches_beyond_the_table() -> None:
    table = _planted(1e-5, False)
    law = fit_sweep(**table, bootstrap=50)
    largest = {name: law.domain[name][1] for name in ("params", "tokens")}
    beyond = law.predict(4 * largest["params"], largest["tokens"]).extrapolation
    assert beyond["params"] == pytest.approx(4.0)
    assert beyond["tokens"] == 1.0
    assert beyond["flops"] > 1.0
    assert published_law("step-law").predict(1e9, 1e11).extrapolation == {}


def test_the_document_reads_back_to_the_same_choice(tmp_path: Path) -> None:
    law = fit_sweep(**_planted(1e-4, True), bootstrap=50)
    law.save(tmp_path / "law.json")
    again = from_document(json.loads((tmp_path / "law.json").read_text()))
    assert again.predict(1e9, 1e10).to_dict()["learning_rate"]["value"] == pytest.approx(
        law.predict(1e9, 1e10).learning_rate.best.value, rel=1e-6
    )


def test_tables_that_determine_no_law_are_refused() -> None:
    table = _planted(1e-4, False)
    with pytest.raises(TableError, match="have no valley"):
        fit_sweep(**table | {"loss": 9.0 - table["loss"]}, bootstrap=50)
    with pytest.raises(TableError, match="tried at 3 learning rates"):
        fit_sweep(**{k: v[:5] for k, v in table.items()}, bootstrap=50)
    n = np.geomspace(1e7, 1e9, 8)
    with pytest.raises(TableError, match="change in step"):
        fit_optima(n, 20 * n, 1e-3 * (n / 1e8) ** -0.3)
    with pytest.raises(TableError, match="no hyper-parameter law of"):
        fit_sweep(**table, of="luck", bootstrap=50)  # type: ignore[arg-type]


def test_a_sweep_that_never_brackets_its_optimum_is_unsupported() -> None:
    table = _planted(1e-5, False)
    middle = 0.5 * table["params"] ** -0.4 * table["tokens"] ** 0.1
    low = middle * np.exp(np.tile([-2.0, -1.75, -1.5, -1.25, -1.0], 12))
    loss = 3.0 * np.exp(0.004 * np.log(low / middle) ** 2)
    law = fit_sweep(**table | {"learning_rate": low, "loss": loss}, bootstrap=50)
    assert "outside what was tried" in law.verdict
