"""`isoflop laws` as a user meets it: its words, exit status, documents, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoflop.cli.laws import WORDS
from isoflop.cli.main import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    rng = np.random.default_rng(3)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 8e6, 4), np.geomspace(1e8, 8e8, 4)))
    loss = (1.7 + 200 * n**-0.34 + 400 * d**-0.3) * np.exp(0.001 * rng.standard_normal(n.size))
    rows = [f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)]
    path.write_text("\n".join(["N,D,loss", *rows, "5,5,", ""]))
    return path


@pytest.fixture(scope="module")
def law(runs: Path) -> Path:
    out = runs.parent / "law.json"
    command = ["laws", "fit", str(runs), "--columns", "params=N,tokens=D", "--bootstrap", "200"]
    assert main([*command, "--form", "gamma", "-o", str(out)]) == 0
    return out


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("word", WORDS)
def test_every_word_explains_itself(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", word, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: isoflop laws {word}" in said
    assert "--json" in said


def test_fit_prints_the_document_that_it_writes(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "law.json"
    command = ["laws", "fit", str(runs), "--columns", "params=N,tokens=D", "--bootstrap", "100"]
    assert main([*command, "-o", str(out), "--json"]) == 0
    assert document(capsys) == json.loads(out.read_text())


def test_fit_lists_rows_left_out_on_stderr(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["laws", "fit", str(runs), "--columns", "params=N,tokens=D", "--bootstrap", "100"])
    said = capsys.readouterr()
    assert f"{runs}:18: left out, loss is missing" in said.err
    assert "verdict: supported" in said.out


def test_predict_and_optimal_print_exactly_the_contract(
    law: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", "predict", str(law), "--params", "3e7", "--tokens", "3e9", "--json"]) == 0
    promise = document(capsys)
    assert list(promise) == ["loss", "low", "high", "level", "extrapolation"]
    assert list(promise["extrapolation"]) == ["params", "tokens", "flops"]
    assert promise["low"] < 1.7 + 200 * 3e7**-0.34 + 400 * 3e9**-0.3 < promise["high"]
    assert main(["laws", "optimal", str(law), "--flops", "1e18", "--json"]) == 0
    best = document(capsys)
    assert list(best)[:5] == ["params", "tokens", "flops", "loss", "exponents"]
    assert list(best["loss"]) == list(promise)


def test_predict_says_the_promise_in_words(law: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["laws", "predict", str(law), "--params", "3e7", "--tokens", "8e8"]
    assert main([*command, "--level", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "with 50 % probability between" in said
    assert "3.75 × in params" in said
    assert "in tokens" not in said


def test_an_unsupported_law_is_written_and_the_exit_status_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n},{d},{1.7 + 200 * n**-0.34 + 400 * d**-0.3}" for n in (1e6, 4e6) for d in
            (1e8, 2e8, 4e8, 8e8)]  # fmt: skip
    table, out = tmp_path / "two.csv", tmp_path / "law.json"
    table.write_text("\n".join(["params,tokens,loss", *rows]))
    command = ["laws", "fit", str(table), "--form", "gamma", "--bootstrap", "200"]
    assert main([*command, "-o", str(out)]) == 1
    assert "unsupported: 2 sizes" in capsys.readouterr().out
    asked = [
        ["predict", str(out), "--params", "1e7", "--tokens", "1e9"],
        ["optimal", str(out), "--flops", "1e18"],
        ["what-if", str(out), "--flops", "1e18"],
        ["serving", str(out), "--loss", "2.6", "--served-tokens", "1e12"],
    ]
    for words in asked:
        assert main(["laws", *words]) == 1, words
        assert "the law is unsupported: 2 sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "none.csv"], "none.csv: no such run table"),
        (["fit"], "no run table was given"),
        (["predict", "none.json", "--params", "1", "--tokens", "1"], "none.json: no such file"),
        (["predict", "besirolu"], "Did you mean besiroglu?"),
        (["fitt"], "fitt"),
        (["fit", "a.csv", "--form", "chinchila"], "chinchila"),
        (["backtest", "none.csv"], "none.csv: no such run table"),
        (["backtest"], "no run table was given"),
    ],
)
def test_bad_usage_exits_with_2_and_one_paragraph(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", *args]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


def test_predicting_imports_neither_torch_nor_scipy(law: Path) -> None:
    script = (
        "import sys; from isoflop.cli.main import main; "
        f"main(['laws', 'predict', {str(law)!r}, '--params', '1e7', '--tokens', '1e9']); "
        "print([m for m in ('torch', 'scipy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
