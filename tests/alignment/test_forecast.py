"""Forecasts against what can be counted: two-valued rewards, all draws of a small table."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from isoflop.alignment.forecast import best_of, best_of_divergence, dead_groups, frontier


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_the_frontier_of_right_and_wrong_is_its_closed_form(beta: float) -> None:
    share = 0.25
    rewards = np.array([[1.0] * 25 + [0.0] * 75] * 3)
    point = frontier(rewards, [beta])[0]
    best = share * math.exp(1 / beta) / (share * math.exp(1 / beta) + 1 - share)
    kl = best * math.log(best / share)
    kl += (1 - best) * math.log((1 - best) / (1 - share)) if best < 1 else 0.0
    assert point.value == pytest.approx(beta * math.log(1 + share * math.expm1(1 / beta)))
    assert point.reward == pytest.approx(best)
    assert point.kl == pytest.approx(kl, abs=1e-9)
    assert point.error == 0


def test_reward_and_divergence_rise_as_the_weight_falls() -> None:
    rewards = np.random.default_rng(0).normal(size=(20, 64))
    points = frontier(rewards, [3.0, 1.0, 0.3, 0.1, 0.01])
    rewards_on_it = [point.reward for point in points]
    assert rewards_on_it == sorted(rewards_on_it)
    assert [point.kl for point in points] == sorted(point.kl for point in points)
    assert points[-1].reward == pytest.approx(rewards.max(1).mean(), abs=0.05)
    assert points[-1].kl <= math.log(64)


def test_the_best_value_is_that_of_the_closed_form_policy() -> None:
    """On a whole table the mean over answers is the expectation."""
    draw = np.random.default_rng(1)
    rewards, beta = draw.normal(size=(1, 40)), 0.5
    best = np.exp(rewards[0] / beta)
    best /= best.sum()
    value = (best * (rewards[0] - beta * np.log(best * 40))).sum()
    assert frontier(rewards, [beta])[0].value == pytest.approx(value)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_best_of_k_and_dead_groups_are_means_over_all_groups(k: int) -> None:
    rewards = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [3, 1, -2, 0.5, 1]], dtype=float)
    groups = [[row[list(some)] for some in combinations(range(5), k)] for row in rewards]
    passed = np.mean([[group.max() for group in row] for row in groups])
    dead = np.mean([[group.min() == group.max() for group in row] for row in groups])
    assert best_of(rewards, k) == pytest.approx(passed)
    assert dead_groups(rewards, k) == pytest.approx(dead)


def test_impossible_questions_are_refused() -> None:
    rewards = np.zeros((2, 3))
    with pytest.raises(ValueError, match="k = 4"):
        best_of(rewards, 4)
    with pytest.raises(ValueError, match="group = 4"):
        dead_groups(rewards, 4)
    with pytest.raises(ValueError, match="positive"):
        frontier(rewards, [0.0])


@pytest.mark.parametrize("k", [1, 2, 8, 64])
def test_the_divergence_of_the_best_of_k_is_that_of_a_uniform_tables_order_statistics(
    k: int,
) -> None:
    # The best of k has the rank i of n with probability (i/n)^k − ((i − 1)/n)^k.
    n = 200_000
    rank = np.arange(n + 1) / n
    chance = np.diff(rank**k)
    chance = chance[chance > 0]
    exact = float((chance * np.log(chance * n)).sum())
    assert best_of_divergence(k) == pytest.approx(exact, abs=1e-4)
