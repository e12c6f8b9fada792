"""`isoflop laws profile`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.cli.main import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(2e8, 2e11, 5))
    n, d = (axis.ravel() for axis in grid)
    loss = (1.7 + 400.0 * n**-0.34 + 410.0 * d**-0.28) * np.exp(
        5e-4 * np.random.default_rng(3).standard_normal(n.size)
    )
    rows = [f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True)]
    path.write_text("\n".join(["N,D,loss", *rows]))
    return str(path)


def test_profiles_are_printed_drawn_and_written(
    runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "profiles.svg"
    words = ["laws", "profile", runs, "--columns", "params=N,tokens=D", "--form", "chinchilla"]
    assert main([*words, "--plot", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "E, the floor" in said
    assert "g, how they combine" not in said
    assert said.splitlines()[-1] == "verdict: supported"
    assert "Profile likelihoods" in picture.read_text()
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [p["parameter"] for p in document["profiles"]] == ["E", "p", "q"]
    (floor, *_) = document["profiles"]
    assert floor["low"] < 1.7 < floor["high"]


def test_an_average_has_no_profile(runs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "profile", runs, "--form", "auto"]) == 2
    assert "auto" in capsys.readouterr().err
