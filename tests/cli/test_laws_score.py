"""`isoflop laws backtest`, `compare`, `next`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoflop.cli.main import main


def _surface(n: Any, d: Any) -> Any:
    return 1.7 + 400.0 * n**-0.34 + 410.0 * d**-0.28


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(2e8, 2e11, 6))
    n, d = (axis.ravel() for axis in grid)
    loss = _surface(n, d) * np.exp(0.001 * np.random.default_rng(3).standard_normal(n.size))
    rows = [f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)]
    path.write_text("\n".join(["N,D,loss", *rows]))
    return str(path)


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["laws", *words, "--columns", "params=N,tokens=D", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_backtest_prints_the_score(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    scored = _run(capsys, "backtest", runs, "--form", "gamma")
    assert (scored["n_fit"], scored["n_held_out"], len(scored["points"])) == (29, 7, 7)
    assert scored["median_error_percent"] < 1.0


def test_a_cut_holds_out_what_lies_beyond_it(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    scored = _run(capsys, "backtest", runs, "--cut", "10")
    compute = [6 * point["params"] * point["tokens"] for point in scored["points"]]
    assert min(compute) > 6 * 1e9 * 2e11 / 10
    assert max(compute) == pytest.approx(6 * 1e9 * 2e11)
    assert main(["laws", "backtest", runs, "--columns", "params=N,tokens=D", "--cut", "0.5"]) == 2
    assert "cut must be above 1" in capsys.readouterr().err


def test_backtest_says_the_score_in_words(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "backtest", runs, "--columns", "params=N,tokens=D"]) == 0
    said = capsys.readouterr().out
    assert "fitted to the 29 runs of least compute, scored on 7" in said
    assert said.splitlines()[-1] == "verdict on the small runs: supported"


def test_compare_shows_every_form_at_every_cut(
    runs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["laws", "compare", runs, "--columns", "params=N,tokens=D"]
    assert main([*words, "--cuts", "3", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("percent of the loss:") for line in lines) == 2
    for form in ("auto", "gamma", "chinchilla", "kaplan-nd"):
        assert sum(line.startswith(f"  {form} ") for line in lines) == 2
    medians = [float(line.split()[1]) for line in lines[2:6]]
    assert medians == sorted(medians)
    assert lines[5].startswith("  kaplan-nd")  # these runs have a floor


def test_next_names_runs_within_the_budget_and_what_they_bring(
    runs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    advice = _run(capsys, "next", runs, "--count", "3", "--flops", "1e20")
    assert len(advice["runs"]) == 3
    assert all(run["flops"] <= 1.001e20 and 0 <= run["gain"] <= 1 for run in advice["runs"])
    goal = advice["goal"]
    assert 6 * goal["params"] * goal["tokens"] == pytest.approx(10 * 6 * 1e9 * 2e11)
    asked = _run(capsys, "next", runs, "--params", "1e10", "--tokens", "3e11")
    assert asked["goal"] == {"params": 1e10, "tokens": 3e11}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--params", "1e9"], "one is missing"),
        (["--flops", "1"], "The cheapest costs 1.2e+16"),
        (["--flops", "-1"], "flops must be positive"),
        (["--count", "0"], "0 runs are none"),
    ],
)
def test_next_refuses_what_it_cannot_advise_on(
    words: list[str], message: str, runs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", "next", runs, "--columns", "params=N,tokens=D", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_thrifty_choice_costs_less(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    rich, thrifty = (
        _run(capsys, "next", runs, "--thrift", thrift)["runs"][0]["flops"] for thrift in ("0", "1")
    )
    assert thrifty < rich


def test_runs_that_support_nothing_exit_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "two.csv"
    rows = [f"{n},{d},{_surface(n, d)}" for n in (1e7, 4e7) for d in (1e9, 2e9, 4e9, 8e9)]
    table.write_text("\n".join(["params,tokens,loss", *rows]))
    assert main(["laws", "next", str(table)]) == 1
    assert "unsupported: 2 sizes" in capsys.readouterr().out
    assert main(["laws", "backtest", str(table)]) == 1


def test_a_backtest_is_drawn_with_the_calibration_of_four_levels(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "backtest.svg"
    scored = _run(capsys, "backtest", runs, "--form", "gamma", "--plot", str(picture))
    drawn = picture.read_text()
    assert "Held-out runs" in drawn
    assert drawn.count(f"of {scored['n_held_out']} held at") == 4
