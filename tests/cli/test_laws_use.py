"""`isoflop laws predict` and `optimal`: files and published names, what each form is asked with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from isoflop.cli.laws_fit import Form
from isoflop.cli.laws_use import OPTIMA, PREDICTIONS
from isoflop.cli.laws_words import optimal_answer
from isoflop.cli.main import main
from isoflop.laws import published_law
from isoflop.laws.mixture import fit_mixture
from isoflop.laws.published import FORMULAS


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["laws", *words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_every_form_and_every_published_kind_can_be_asked_something() -> None:
    asked = {*PREDICTIONS, *OPTIMA}
    assert set(get_args(Form)) <= asked
    assert set(FORMULAS) <= asked


def test_a_published_name_stands_where_a_file_may(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "besiroglu", "--params", "7e10", "--tokens", "1.4e12"]
    promise = _run(capsys, *words)
    assert promise["loss"] == pytest.approx(
        1.8172 + 482.01 / 7e10**0.3478 + 2085.43 / 1.4e12**0.3658, rel=1e-9
    )
    assert promise["low"] < promise["loss"] < promise["high"]
    assert "correlations" in promise["basis"]
    best = _run(capsys, "optimal", "hoffmann-1", "--flops", "5.76e23")
    assert 60e9 < best["params"] < 75e9


def test_a_file_is_preferred_to_a_published_law_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kaplan").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert main(["laws", "optimal", "kaplan", "--flops", "1e20"]) == 2
    assert "kaplan: this is not a law" in capsys.readouterr().err


def test_a_law_without_standard_errors_promises_no_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["predict", "muennighoff", "--params", "1e9", "--tokens", "1e11"]
    promise = _run(capsys, *words, "--unique-tokens", "1e10")
    assert promise["low"] is None
    assert promise["high"] is None
    assert promise["extrapolation"].keys() >= {"params", "tokens", "flops"}
    assert main(["laws", *words]) == 0
    assert "no interval: no standard errors were published" in capsys.readouterr().out
    fresh = _run(capsys, *words)
    assert fresh["loss"] < promise["loss"]


def test_an_allocation_alone_has_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    best = _run(capsys, "optimal", "llama-3", "--flops", "3.8e25")
    assert best["tokens"] == pytest.approx(16.55e12, rel=2e-3)  # their section 3.2.1
    assert best["loss"]["loss"] is None
    assert main(["laws", "optimal", "llama-3", "--flops", "3.8e25"]) == 0
    assert "says nothing of the loss" in capsys.readouterr().out


def test_a_power_of_one_variable_needs_that_one_alone(capsys: pytest.CaptureFixture[str]) -> None:
    promise = _run(capsys, "predict", "kaplan-n", "--params", "1e9")
    assert promise["loss"] == pytest.approx((8.8e13 / 1e9) ** 0.076)
    assert promise["extrapolation"]["params"] == 1.0
    assert promise["extrapolation"]["tokens"] is None


@pytest.mark.parametrize("name", ["deepseek", "step-law"])
def test_published_hyperparameters_are_predicted_by_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _run(capsys, "predict", name, "--params", "1e9", "--tokens", "1e11")
    expected = {"deepseek": 0.3118 * 6e20**-0.125, "step-law": 1.79 * 1e9**-0.713 * 1e11**0.307}
    assert found["learning_rate"]["value"] == pytest.approx(expected[name])
    assert main(["laws", "predict", name, "--params", "1e9", "--tokens", "1e11"]) == 0
    assert "learning rate" in capsys.readouterr().out


def test_experts_and_bits_are_divided_into_size_and_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dense, sparse = (
        _run(capsys, "optimal", "ludziejewski", "--flops", "1e22", "--experts", count)
        for count in ("1", "16")
    )
    assert sparse["loss"]["loss"] < dense["loss"]["loss"]
    assert dense["params"] * dense["tokens"] == pytest.approx(1e22 / 6)
    assert dense["exponents"]["a"] == pytest.approx(0.1775 / (0.1775 + 0.1889), rel=0.1)
    full, few = (
        _run(capsys, "optimal", "kumar", "--flops", "1e21", "--bits", bits) for bits in ("16", "4")
    )
    assert few["params"] > full["params"]
    assert set(full) == set(dense) - {"experts"}


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    shares = np.random.default_rng(0).dirichlet(np.ones(2), size=12)
    losses = 2.0 + np.exp(shares @ np.array([[-1.0, 0.5], [0.5, -2.0]]).T)
    names = ("web", "code")
    law = fit_mixture(shares, losses, training=names, validation=names, bootstrap=50)
    law.save(tmp_path / "mixture.json")
    return str(tmp_path / "mixture.json")


def test_the_best_mixture_obeys_the_target_and_the_limits(
    mixture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    web = _run(capsys, "optimal", mixture, "--target", "web=1")
    assert web["weights"]["web"]["value"] > 0.95
    held = _run(capsys, "optimal", mixture, "--target", "web=1", "--most", "web=0.3")
    assert held["weights"]["web"]["value"] == pytest.approx(0.3, abs=1e-6)
    assert main(["laws", "optimal", mixture]) == 0
    assert "mixture with the lowest mean loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predict besiroglu --params 1e9", "needs --params, --tokens. Add --tokens"),
        ("predict besiroglu --params 1e9 --tokens 1e9 --loss 2", "takes no --loss"),
        ("predict besiroglu --params -1 --tokens 1e9", "params must be positive"),
        ("predict besiroglu --params 1e9 --tokens 1e9 --level 2", "level must lie between 0 and 1"),
        ("predict llama-3 --params 1e9 --tokens 1e9", "does not foretell a run"),
        ("optimal besiroglu", "needs --flops"),
        ("optimal kaplan-n --flops 1e20", "does not divide a budget"),
        ("optimal MIXTURE --flops 1e20", "takes no --flops. It takes --target, --most, --level"),
        ("predict MIXTURE --weights web=half,code=0.5", "a share that is no number"),
        ("predict MIXTURE --weights web", "'web' does not say what is how much"),
        ("predict MIXTURE --weights web=0.5,cod=0.5", "no training domain cod"),
        ("predict MIXTURE --weights web=0.5,code=0.1", "weights adding up to 0.6"),
        ("predict nobody --params 1", "neither a file nor a published law 'nobody'"),
    ],
)
def test_what_a_law_cannot_be_asked_is_refused_in_one_paragraph(
    words: str, message: str, mixture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", *words.replace("MIXTURE", mixture).split()]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_a_name_is_found_whatever_its_case() -> None:
    assert published_law("Besiroglu").name == "besiroglu"


def test_the_best_size_is_said_with_its_ends_where_the_law_knows_them() -> None:
    law = published_law("hoffmann-3")
    plain = law.optimal(1.2e21)

    def said(ends: tuple[float, float] | None) -> str:
        known: Any = SimpleNamespace(**{**vars(plain), "params_ends": ends}, to_dict=plain.to_dict)
        return optimal_answer(law, known)[1]

    assert (
        "with 90 % probability the best lies at 1e+09 to 4e+09 parameters on 5e+10 to 2e+11 tokens"
        in said((1e9, 4e9))
    )
    assert "this law does not know" in said(None)


@pytest.mark.parametrize(
    "words",
    [
        "laws predict runs.csv --params 1e9 --tokens 1e10",
        "laws what-if runs.csv --flops 1e21",
        "plan --flops 1e21 --law runs.csv",
        "plan --flops 1e21 --tasks runs.csv",
    ],
)
def test_a_table_given_for_a_law_is_told_how_to_become_one(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert "isoflop laws fit runs.csv -o law.json" in capsys.readouterr().err
