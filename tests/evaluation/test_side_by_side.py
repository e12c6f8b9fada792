"""Two finished evaluations paired by item."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.core.artifact import write_json, write_manifest
from isoflop.core.errors import ArtifactError
from isoflop.evaluation.side_by_side import side_by_side


def evaluation(path: Path, tasks: dict[str, list[int]], *, asked: str = "q") -> Path:
    """An evaluation with one right or wrong answer an item."""
    path.mkdir()
    rows: list[dict[str, Any]] = [
        {"task": task, "id": str(i), "score": float(s), "counts": True, "weight": 1.0,
         "detail": {"prompt": f"{asked}{i}", "gold": "g"}}
        for task, scores in tasks.items()
        for i, s in enumerate(scores)
    ]  # fmt: skip
    (path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    means = {task: {"score": sum(scores) / len(scores)} for task, scores in tasks.items()}
    write_json(path / "results.json", means)
    write_manifest(path, kind="evaluation", config={}, machine={}, seed=0)
    return path


def test_the_difference_is_the_seconds_less_the_firsts_and_mcnemars_p(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a", {"t": [1] * 10 + [0] * 20})
    second = evaluation(tmp_path / "b", {"t": [0] * 2 + [1] * 8 + [1] * 10 + [0] * 10})
    (row,) = side_by_side(first, second)
    assert row.difference is not None
    assert row.difference.value == pytest.approx(8 / 30)
    # 2 items lost, 10 won: the exact test of 2 or fewer heads in 12 throws, both sides.
    assert row.difference.p == pytest.approx(2 * sum(comb(12, k) for k in range(3)) / 2**12)
    assert row.difference.n == 30


def test_tasks_that_cannot_be_paired_say_why(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a", {"t": [1, 0], "only": [1]})
    second = evaluation(tmp_path / "b", {"t": [1, 0]}, asked="another")
    notes = {row.task: (row.difference, row.note) for row in side_by_side(first, second)}
    assert notes["t"] == (None, "the items are not the same: another seed, limit or file")
    assert notes["only"] == (None, "only one of them has this task")


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a", {"t": [1]})
    with pytest.raises(ArtifactError):
        side_by_side(first, tmp_path)


def test_the_report_shows_two_evaluations_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = evaluation(tmp_path / "a", {"t": [0] * 20})
    second = evaluation(tmp_path / "b", {"t": [1] * 20})
    out = tmp_path / "page.html"
    said = ["report", str(first), str(second), "--compare", "-o", str(out), "--json"]
    assert main(said) == 0
    (row,) = json.loads(capsys.readouterr().out)["comparison"]["rows"]
    assert (row["first"], row["second"], row["difference"]) == (0.0, 1.0, 1.0)
    page = out.read_text()
    assert 'id="comparison"' in page
    assert "20" in page
    assert main([*said[:2], "--compare", "-o", str(out)]) == 2
