"""Directions of scores over scale, gains between ways of asking, BIG-bench's numbers."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.score_trends import (
    big_bench,
    gain_over_scale,
    second_differences,
    trend_of,
)
from isoflop.laws.scores import TaskScores

SCALE = np.logspace(15, 19, 9)


def drawn(shares: np.ndarray, rng: np.random.Generator, items: int = 200) -> TaskScores:
    asked = np.full((len(shares), 3), float(items))
    right = rng.binomial(items, np.repeat(shares[:, None], 3, axis=1)).astype(float)
    return TaskScores("task", SCALE[: len(shares)], right, asked)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


X = np.linspace(-1, 1, 9)
WORLDS = {
    "rising": [0.1 + 0.8 * sigmoid(4 * X), 0.25 + 0.7 * sigmoid(10 * (X - 0.5)), sigmoid(3 * X)],
    "inverse scaling": [0.6 - 0.15 * X, 0.5 - 0.4 * sigmoid(5 * X)],
    "U-shaped": [0.3 + 0.4 * X**2, 0.5 + 0.3 * X**2],
    "inverted U": [0.7 - 0.4 * X**2],
    "flat": [np.full(9, 0.25), np.full(9, 0.5)],
}


@pytest.mark.parametrize("name", WORLDS)
def test_planted_directions_get_their_names(name: str) -> None:
    rng = np.random.default_rng(1)
    for shares in WORLDS[name]:
        found = Counter(trend_of(drawn(shares, rng)).name for _ in range(40))  # type: ignore[union-attr]
        assert found[name] >= 38, found


def test_nothing_but_chance_is_seldom_named() -> None:
    rng = np.random.default_rng(2)
    found = Counter(trend_of(drawn(np.full(9, 0.4), rng)).name for _ in range(300))  # type: ignore[union-attr]
    assert found["flat"] >= 290


def test_three_rungs_have_no_direction() -> None:
    assert trend_of(drawn(np.array([0.1, 0.5, 0.9]), np.random.default_rng(0))) is None


def test_big_benchs_numbers_by_hand() -> None:
    steady = big_bench([0.0, 0.25, 0.5, 0.75, 1.0])
    assert steady is not None
    assert (steady.linearity, steady.breakthroughness) == (pytest.approx(4), pytest.approx(4))
    broken = big_bench([0.0, 0.01, 0.02, 0.03, 1.03])
    assert broken is not None
    assert broken.linearity == pytest.approx(1.03 / math.sqrt((3 * 0.01**2 + 1) / 4))
    assert broken.breakthroughness == pytest.approx(103)
    falling = big_bench([0.8, 0.5, 0.2])
    assert falling is not None
    assert falling.linearity < 0
    assert big_bench([0.5, 0.5, 0.5]) is None
    stuck = big_bench([0.0, 0.0, 0.0, 1.0])
    assert stuck is not None
    assert stuck.breakthroughness is None


def test_second_differences_of_a_square_are_constant() -> None:
    assert second_differences([0.0, 0.01, 0.04, 0.09]) == pytest.approx((0.02, 0.02))


def test_a_gain_that_comes_with_scale_is_placed_there() -> None:
    rng = np.random.default_rng(3)
    direct = np.full(9, 0.1)
    stepped = np.where(X < 0, 0.1, 0.1 + 0.6 * X)
    found = gain_over_scale(drawn(stepped, rng), drawn(direct, rng))
    assert found.trend == "grows"
    assert found.p < 1e-6
    assert found.pays_from is not None
    assert SCALE[4] <= found.pays_from <= SCALE[6]
    assert len(found.gain) == 9


def test_the_interval_of_a_gain_is_newcombes() -> None:
    # Newcombe 1998, table II, row (a): 56/70 against 48/80, 95 %: 0.0524 to 0.3339.
    def of(right: int, asked: int) -> TaskScores:
        two = np.full((2, 1), 1.0)
        return TaskScores("t", np.array([1.0, 2.0]), right * two, asked * two)

    found = gain_over_scale(of(56, 70), of(48, 80), level=0.95)
    assert found.gain[0] == pytest.approx(0.2)
    assert found.low[0] == pytest.approx(0.0524, abs=5e-5)
    assert found.high[0] == pytest.approx(0.3339, abs=5e-5)
    assert found.trend == "steady"


def test_intervals_of_gains_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    stepped, direct = sigmoid(3 * X), 0.5 * sigmoid(3 * X)
    hits = [
        low <= truth <= high
        for _ in range(60)
        for found in [gain_over_scale(drawn(stepped, rng), drawn(direct, rng))]
        for low, high, truth in zip(found.low, found.high, stepped - direct, strict=True)
    ]
    assert 0.85 <= np.mean(hits) <= 0.97


def test_tasks_without_common_models_have_no_gain() -> None:
    one = drawn(np.full(4, 0.5), np.random.default_rng(0))
    other = TaskScores("other", SCALE[:4] * 3, one.right, one.asked)
    with pytest.raises(TableError, match="0 rungs in common"):
        gain_over_scale(one, other)
