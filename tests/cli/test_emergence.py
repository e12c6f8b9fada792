"""`isoflop emergence` on tables of items and of evaluations, and on tables that are none."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoflop.cli.main import main
from isoflop.laws.scores import TaskScores

World = Callable[..., tuple[TaskScores, Any, Any]]


def items(world: World, path: Path, kind: str) -> Path:
    """A table of items of one world."""
    task, right, logprob = world(kind, np.random.default_rng(0))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "flops", "seed", "item", "score", "logprob"])
        for r, flops in enumerate(task.scale):
            for s in range(right.shape[1]):
                for i in range(right.shape[2]):
                    row = [kind, f"{flops:.6g}", s, i, int(right[r, s, i]), logprob[r, s, i]]
                    writer.writerow(row)
    return path


def test_items_with_log_probabilities_get_a_verdict(
    score_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = items(score_world, tmp_path / "results.csv", "metric effect")
    assert main(["emergence", str(path), "--draws", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scale"] == "flops"
    assert found["tasks"]["metric effect"]["verdict"] == "metric effect"
    assert len(found["tasks"]["metric effect"]["shares"]) == 9
    assert main(["emergence", str(path), "--draws", "100"]) == 0
    said = capsys.readouterr().out
    assert "metric effect: metric effect" in said
    assert "foretold from the log-probabilities" in said


def test_evaluations_with_other_names_are_read_and_bad_rows_named(
    score_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, _, _ = score_world("threshold", np.random.default_rng(2), continuous=False)
    rows = [
        f"{scale:.6g},{s},{task.right[r, s] / task.asked[r, s]},{task.asked[r, s]:.0f}"
        for r, scale in enumerate(task.scale) for s in range(3)
    ]  # fmt: skip
    path = tmp_path / "results.csv"
    path.write_text("\n".join(["C,seed,accuracy,n", *rows, "1e20,0,1.7,200"]))
    words = ["--columns", "score=accuracy,flops=C", "--draws", "100", "--json"]
    assert main(["emergence", str(path), *words]) == 0
    out, said = capsys.readouterr()
    assert json.loads(out)["tasks"]["task"]["verdict"] == "threshold"
    assert json.loads(out)["rejected"] == 1
    assert "results.csv:29: left out, score = 1.7 is no share between 0 and 1" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no `score` or none of flops, params, tokens, step; it has a, b"),
        ("score,flops\nx,1\n", "no row can be used"),
        ("score,flops\n", "no `score`"),
    ],
)
def test_a_table_without_scores_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert main(["emergence", str(path)]) == 2
    assert said in capsys.readouterr().err
