"""The section on abilities: what it shows of planted scores, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError
from isoflop.laws.emergence import emergence
from isoflop.laws.score_trends import gain_over_scale
from isoflop.laws.scores import TaskScores
from isoflop.reporting.abilities import abilities, read_abilities
from isoflop.reporting.collect import collect
from isoflop.reporting.page import build
from isoflop.reporting.records import Report

SIZES = (60_000, 120_000, 240_000)
ITEMS = 200


def planted() -> dict[str, Any]:
    """Nine runs: one task rises, one steps, one stays at chance, one learns in context."""
    runs = [
        {"run_id": f"d{i}-{j}", "params": float(size), "tokens": 2e6 * 3**j,
         "flops": 6.0 * size * 2e6 * 3**j, "seed": 0.0}
        for i, size in enumerate(SIZES) for j in range(3)
    ]  # fmt: skip
    runs.sort(key=lambda run: run["flops"])
    rng = np.random.default_rng(0)
    curves = {
        "cloze": (0.25 + 0.7 / (1 + np.exp(-np.linspace(-3, 3, 9))), 0.25),
        "word_problems": (np.where(np.arange(9) < 5, 0.05, 0.75), 0.0),
        "minimal_pairs": (np.full(9, 0.5), 0.5),
        "icl_mapping": (np.linspace(0.25, 0.9, 9), 0.25),
    }
    scale = np.array([run["flops"] for run in runs])
    tasks, tables = {}, []
    for name, (shares, chance) in curves.items():
        right = rng.binomial(ITEMS, shares)
        tables.append(TaskScores(name, scale, right[:, None].astype(float),
                                 np.full((9, 1), float(ITEMS)), chance=chance))  # fmt: skip
        scored = {}
        for run, share in zip(runs, right / ITEMS, strict=True):
            half = 1.96 * np.sqrt(share * (1 - share) / ITEMS)
            groups = {
                f"k={k}": {"score": chance + (share - chance) * i / 5, "low": 0.0, "high": 1.0,
                           "n": 40, "standing": "at"}
                for i, k in enumerate((0, 1, 2, 4, 8, 16))
            }  # fmt: skip
            groups["k=16, answers shuffled"] = {**groups["k=0"], "score": chance}
            scored[run["run_id"]] = {
                "score": share, "low": share - half, "high": share + half, "n": ITEMS,
                "standing": "above" if share - half > chance else "at",
                "groups": groups if name.startswith("icl") else {},
            }  # fmt: skip
        tasks[name] = {"metric": "accuracy", "chance": chance, "higher_is_better": True,
                       "runs": scored}  # fmt: skip
    direct = TaskScores("direct", scale, np.full((9, 1), 10.0), np.full((9, 1), float(ITEMS)))
    found = emergence(tables, draws=60)
    return {
        "runs": runs, "tasks": tasks, "emergence": {each.task: asdict(each) for each in found},
        "gains": {"word_problems": asdict(gain_over_scale(tables[1], direct))},
    }  # fmt: skip


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(json.dumps(planted()))


@pytest.fixture(scope="module")
def body(document: dict[str, Any]) -> str:
    section = abilities(Report("t", "", abilities=document))
    assert section is not None
    return section.body


def test_every_score_has_a_cell_and_those_at_chance_are_grey(
    body: str, document: dict[str, Any]
) -> None:
    heat = body[: body.index("</svg>")]
    scores = [run for task in document["tasks"].values() for run in task["runs"].values()]
    at_chance = sum(run["standing"] == "at" for run in scores)
    assert heat.count("<rect") == len(scores) == 36
    assert heat.count("cell soft") == heat.count("at chance</title>") == at_chance >= 8


def test_every_picture_is_well_formed_and_named_apart(body: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", body, re.DOTALL)
    assert len(pictures) == 2 * (1 + 4 + 1 + 1)
    for picture in pictures:
        ElementTree.fromstring(picture)
    ids = re.findall(r' id="([^"]+)"', body)
    assert len(ids) == len(set(ids))


def test_each_task_has_its_verdict_in_words(body: str, document: dict[str, Any]) -> None:
    for name, found in document["emergence"].items():
        assert f"{name}: <em>{found['verdict']}</em>" in body
    assert document["emergence"]["word_problems"]["verdict"] == "threshold"


def test_names_from_files_cannot_break_out(document: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    said = json.loads(json.dumps(document).replace("cloze", evil))
    section = abilities(Report("t", "", abilities=said))
    assert section is not None
    assert "<script" not in section.body


def test_the_report_of_a_ladder_carries_it(tmp_path: Path, document: dict[str, Any]) -> None:
    (tmp_path / "abilities.json").write_text(json.dumps(document))
    page = build(collect([tmp_path]))
    assert 'id="abilities"' in page
    assert len(page) < 500_000
    raw = page[page.index('id="report-data">') + 17 :]
    held = json.loads(raw[: raw.index("</script>")])["abilities"]
    assert held["runs"]
    scores = [run for task in held["tasks"].values() for run in task["runs"].values()]
    assert scores
    # Of groups the score and the number of questions, from which the interval follows.
    assert all(len(group) == 2 for run in scores for group in run["groups"].values())


def test_no_scores_make_no_section_and_broken_ones_an_error(tmp_path: Path) -> None:
    assert abilities(Report("t", "")) is None
    path = tmp_path / "abilities.json"
    path.write_text('{"runs": []}')
    with pytest.raises(ArtifactError, match="no scores of a ladder"):
        read_abilities(path)
