"""The shipped filter against the shipped lists, and the interval against scipy's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from isoflop.cli.main import main
from isoflop.serving.redteam import LISTS, attack, disguises, read_lines, share
from isoflop.serving.safety import Rule, SafetyFilter


def test_nine_in_ten_attacks_are_refused_and_hardly_an_ordinary_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["redteam", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["passed"]["of"] >= 300
    assert said["blocked"]["of"] >= 500
    assert said["passed"]["value"] <= 0.1
    assert said["blocked"]["value"] <= 0.02


def test_a_filter_that_knows_nothing_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing.txt").write_text("zzzzzz\n")
    assert main(["redteam", "--safety-lists", str(tmp_path)]) == 1
    assert "384 of 384, 100.0 %" in capsys.readouterr().out
    rules: list[Rule] = []
    done = attack(SafetyFilter(rules, "block"), ["a b"], ["c"])
    assert (done.passed.value, done.blocked.value) == (1.0, 0.0)


@pytest.mark.parametrize(("count", "of"), [(0, 9), (3, 40), (40, 40), (32, 384)])
def test_the_interval_is_wilsons(count: int, of: int) -> None:
    got = share(count, of)
    wanted = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_every_line_of_the_lists_stands_there_once() -> None:
    for name in ("attacks.txt", "benign.txt"):
        lines = read_lines(LISTS / name)
        assert len(lines) == len(set(lines))
    names = {name for text in ("make it", "做它") for name, _ in disguises(text)}
    assert len(names) == 7
