"""Scoring a ladder's runs: once each, item by item, into a table that `emergence` reads."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.evaluation.rungs import ABILITIES, SCORES, evaluate_rungs
from isoflop.laws.scores import read_scores
from isoflop.planning.recipe import EvalConfig

TASKS = ("cloze", "arithmetic")
FLOPS = {"b": 2e12, "a": 1e12}


@pytest.fixture(scope="module")
def ladder(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs (of one model) as a ladder leaves them."""
    out = tmp_path_factory.mktemp("scored") / "ladder"
    lines = ["run_id,params,tokens,flops,seed,loss"]
    for name, flops in FLOPS.items():
        shutil.copytree(model_directory, out / "runs" / name / "model")
        lines.append(f"{name},1000,2000,{flops},0,3.0")
    (out / "runs.csv").write_text("\n".join(lines) + "\n")
    evaluate_rungs(out, TASKS, limit=3)
    return out


def test_every_item_of_every_run_has_a_row_with_its_log_probability(ladder: Path) -> None:
    rows = [json.loads(line) for line in (ladder / SCORES).read_text().splitlines()]
    assert len(rows) == 2 * (2 * 3 + 8 * 3)
    for row in rows:
        assert row["score"] in (0, 1)
        assert row["flops"] == FLOPS[row["run_id"]]
        assert row["logprob"] <= 0
    items = ladder / "scores" / "a" / "items.jsonl"
    first = next(json.loads(line) for line in items.read_text().splitlines())
    logs, gold = first["detail"]["logprobs"], first["detail"]["gold"]
    share = math.exp(logs[gold]) / sum(map(math.exp, logs))
    assert math.exp(rows[0]["logprob"]) == pytest.approx(share)


def test_emergence_reads_the_table_by_compute(ladder: Path) -> None:
    table = read_scores(ladder / SCORES)
    assert table.scale == "flops"
    assert {task.name: (task.rungs, int(task.asked.sum())) for task in table.tasks} == {
        "cloze": (2, 12), "arithmetic": (2, 48),
    }  # fmt: skip
    assert all(task.expected is not None for task in table.tasks)


def test_scores_of_runs_are_those_of_their_evaluations(ladder: Path) -> None:
    document = json.loads((ladder / ABILITIES).read_text())
    assert [run["run_id"] for run in document["runs"]] == ["a", "b"]
    results = json.loads((ladder / "scores" / "b" / "results.json").read_text())
    for name in TASKS:
        assert document["tasks"][name]["runs"]["b"]["score"] == results[name]["score"]
        assert document["tasks"][name]["chance"] == results[name]["chance"]
        assert document["emergence"][name]["verdict"] == "not enough data"


def test_a_run_is_asked_once_until_something_else_is_asked(ladder: Path) -> None:
    manifest = ladder / "scores" / "a" / "manifest.json"
    before = manifest.read_bytes()
    evaluate_rungs(ladder, TASKS, limit=3)
    assert manifest.read_bytes() == before
    evaluate_rungs(ladder, TASKS[:1], limit=1)
    assert manifest.read_bytes() != before
    evaluate_rungs(ladder, TASKS, limit=3)


def test_a_directory_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no table of runs"):
        evaluate_rungs(tmp_path, TASKS)


def test_tasks_are_checked_before_any_training() -> None:
    from isoflop.cli.ladder import check_tasks

    check_tasks(EvalConfig())
    check_tasks(EvalConfig(("cloze",)))
    with pytest.raises(RecipeError, match="Did you mean `cloze`"):
        check_tasks(EvalConfig(("clze",)))
