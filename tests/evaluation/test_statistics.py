"""Intervals and tests against scipy, closed forms, brute force and simulated coverage."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from isoflop.core.errors import DataError
from isoflop.evaluation.statistics import (
    Estimate,
    against_chance,
    clustered_mean,
    items_to_see,
    mcnemar,
    paired_difference,
    ratio,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (47, 200), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_that_of_scipy(successes, n, level):
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    ours = wilson(successes, n, level)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.value == successes / n


def test_a_mean_without_clusters_has_the_ordinary_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    found = clustered_mean(values.tolist(), range(50))
    half = 1.959963985 * values.std(ddof=1) / math.sqrt(50)
    assert (found.value, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )


def test_items_that_only_repeat_their_cluster_add_nothing():
    values = np.random.default_rng(1).normal(size=30).tolist()
    once = clustered_mean(values, range(30))
    many = clustered_mean(
        [v for v in values for _ in range(7)], [i for i in range(30) for _ in range(7)]
    )
    assert (many.value, many.low, many.high) == pytest.approx((once.value, once.low, once.high))


def test_clustered_intervals_hold_the_truth_as_often_as_they_say():
    draw = np.random.default_rng(2)
    held = plain = 0
    for _ in range(600):
        shared = draw.normal(size=(40, 1))
        values = (shared + draw.normal(size=(40, 5))).ravel().tolist()
        found = clustered_mean(values, [i // 5 for i in range(200)])
        held += found.low <= 0 <= found.high
        naive = clustered_mean(values, range(200))
        plain += naive.low <= 0 <= naive.high
    assert 0.915 < held / 600 < 0.98
    assert plain / 600 < 0.85  # without clusters the interval is far too narrow


def test_a_ratio_is_that_of_the_sums_and_one_document_tells_no_interval():
    found = ratio([10.0, 2.0], [5.0, 10.0], [0, 1])
    # By hand: R = 12/15; residuals 10 − 4 = 6 and 2 − 8 = −6; √(2 · 72) / 15.
    assert found.value == pytest.approx(0.8)
    assert found.high - found.value == pytest.approx(1.959963985 * math.sqrt(144) / 15)
    assert ratio([1.0], [2.0], [0]) == Estimate(0.5, -math.inf, math.inf)


def test_mcnemar_is_the_exact_test_of_a_fair_coin():
    for n in range(7):
        for only in range(n + 1):
            ours = [True] * only + [False] * (n - only) + [True, False]
            theirs = [False] * only + [True] * (n - only) + [True, False]
            wanted = stats.binomtest(only, n).pvalue if n else 1.0
            assert mcnemar(ours, theirs) == pytest.approx(wanted)


def test_the_paired_bootstrap_is_near_all_resamples_by_brute_force():
    ours, theirs = [1.0, 0.3, 0.8, 0.1, 0.9], [0.2, 0.4, 0.1, 0.0, 0.7]
    difference = np.subtract(ours, theirs)
    every = [difference[list(index)].mean() for index in product(range(5), repeat=5)]
    found = paired_difference(ours, theirs, [1.0] * 5)
    assert found.value == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.02)


def test_right_or_wrong_answers_are_tested_by_mcnemar():
    ours, theirs = [1.0] * 9 + [0.0] * 3, [0.0] * 8 + [1.0] * 2 + [0.0] * 2
    found = paired_difference(ours, theirs, [1.0] * 12)
    assert found.p == mcnemar([a == 1 for a in ours], [b == 1 for b in theirs])
    assert found.seen
    assert not paired_difference(ours, ours, [1.0] * 12).seen


def test_pairing_sees_what_separate_items_could_not():
    draw = np.random.default_rng(3)
    hard = draw.normal(0, 5, 80)
    found = paired_difference(
        (hard + 0.5).tolist(), (hard + draw.normal(0, 0.1, 80)).tolist(), [1.0] * 80
    )
    assert found.seen
    assert found.p < 0.01


def test_so_many_items_see_three_points_with_the_power_promised():
    assert items_to_see(0.03, 0.5) == 4361  # (1.95996 + 0.84162)² · 0.5 / 0.0009
    n = items_to_see(0.1, 0.5)
    draw = np.random.default_rng(4)
    a, b = draw.binomial(n, 0.55, 4000) / n, draw.binomial(n, 0.45, 4000) / n
    error = np.sqrt(a * (1 - a) / n + b * (1 - b) / n)
    assert (np.abs(a - b) > 1.96 * error).mean() == pytest.approx(0.8, abs=0.03)


def test_scores_at_their_ends_need_items_too():
    nothing, everything = items_to_see(0.03, 0.0), items_to_see(0.03, 1.0)
    assert nothing == everything == items_to_see(0.03, 0.015) == 258


def test_a_score_is_at_chance_if_its_interval_holds_it():
    assert against_chance(Estimate(0.5, 0.4, 0.6), 0.5) == "at"
    assert against_chance(Estimate(0.5, 0.4, 0.6), 0.25) == "above"
    assert against_chance(Estimate(0.1, 0.05, 0.2), 0.25) == "below"


def test_nothing_is_no_score():
    with pytest.raises(DataError, match="no items"):
        wilson(0, 0)
    with pytest.raises(DataError, match="cannot be paired"):
        mcnemar([True], [])
    with pytest.raises(DataError, match="no weight"):
        ratio([1.0], [0.0], [0])
    with pytest.raises(DataError, match="positive"):
        items_to_see(0, 0.5)
