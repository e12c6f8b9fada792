"""Verdicts of emergence on worlds whose truth is planted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isoflop.laws.emergence import emergence
from isoflop.laws.scores import TaskScores

World = Callable[..., tuple[TaskScores, Any, Any]]
KINDS = ("smooth", "metric effect", "threshold", "seed lottery")


def verdicts(
    world: World, kind: str, count: int, continuous: bool = True, draws: int = 200
) -> Counter[str]:
    rng = np.random.default_rng(7)
    worlds = [world(kind, rng, continuous)[0] for _ in range(count)]
    return Counter(emergence([task], draws=draws)[0].verdict for task in worlds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_worlds_of_each_kind_are_told_apart(score_world: World, kind: str) -> None:
    assert verdicts(score_world, kind, 2, draws=100)[kind] == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nine_in_ten_worlds_of_each_kind_get_their_name(score_world: World, kind: str) -> None:
    found = verdicts(score_world, kind, 200)
    print(kind, dict(found))
    assert found[kind] >= 180
    if kind in ("smooth", "metric effect"):
        assert found["threshold"] <= 10, "false alarms"


@pytest.mark.slow
def test_without_log_probabilities_false_alarms_are_as_rare(score_world: World) -> None:
    for kind in ("smooth", "metric effect"):
        found = verdicts(score_world, kind, 100, continuous=False)
        print(kind, dict(found))
        assert found["threshold"] <= 5 + 4


def test_four_rungs_are_refused(score_world: World) -> None:
    task, _, _ = score_world("threshold", np.random.default_rng(0))
    few = replace(
        task, scale=task.scale[:4], right=task.right[:4], asked=task.asked[:4], logprob=None,
        expected=None,
    )  # fmt: skip
    found = emergence([few])[0]
    assert found.verdict == "not enough data"
    assert "4 rungs" in found.reason


def test_few_items_are_said_to_be_few() -> None:
    rng = np.random.default_rng(0)
    p = np.linspace(0.2, 0.5, 9)[:, None]
    right = rng.binomial(12, np.repeat(p, 1, axis=1)).astype(float)
    task = TaskScores("few", 10.0 ** np.arange(18, 27), right, np.full((9, 1), 12.0))
    found = emergence([task], draws=100)[0]
    assert found.verdict == "not enough data"
    assert "items a seed" in found.reason


def test_the_threshold_is_placed_between_its_rungs() -> None:
    x = np.arange(9)
    p = np.where(x >= 5, 0.6, 0.1)[:, None].repeat(3, axis=1)
    right = np.random.default_rng(1).binomial(300, p).astype(float)
    task = TaskScores("t", 10.0 ** (18 + x / 2), right, np.full((9, 3), 300.0))
    found = emergence([task], draws=100)[0]
    assert found.verdict == "threshold"
    assert found.step_at == (10.0**20, 10.0**20.5)
    assert found.step_size == pytest.approx(0.5, abs=0.07)


def test_many_tasks_are_held_to_one_error_rate(score_world: World) -> None:
    """Holm: the same table among quiet ones needs a smaller probability of its own."""
    rng = np.random.default_rng(3)
    quiet = [replace(score_world("smooth", rng)[0], name=f"quiet {i}") for i in range(2)]
    step = score_world("threshold", rng)[0]
    alone = emergence([step], draws=120)[0]
    among = emergence([step, *quiet], draws=120)[0]
    assert alone.p_step is not None
    assert among.p_step == pytest.approx(3 * alone.p_step)


def test_the_foretold_scores_are_the_mean_probabilities_up_to_calibration(
    score_world: World,
) -> None:
    task, _, _ = score_world("metric effect", np.random.default_rng(5))
    found = emergence([task], draws=100)[0]
    assert found.foretold is not None
    assert task.expected is not None
    np.testing.assert_allclose(found.foretold, task.expected.mean(axis=1), atol=0.03)
    assert found.explained is not None
    assert found.explained > 0.01


def test_a_step_among_many_tasks_can_still_be_seen(score_world: World) -> None:
    """No probability lies below 1 / (draws + 1): Holm's factor must not put every one above 5 %."""
    rng = np.random.default_rng(5)
    quiet, _, _ = score_world("smooth", rng, False)
    step, _, _ = score_world("threshold", rng, False)
    tasks = [step, *(replace(quiet, name=f"quiet {i}") for i in range(7))]
    assert emergence(tasks, draws=20)[0].verdict == "threshold"
