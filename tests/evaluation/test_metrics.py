"""pass@k and maj@k against every subset, written out."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.evaluation.metrics import majority_at_k, pass_at_k


def _mean_over_subsets(samples, k, score):
    subsets = list(combinations(samples, k))
    return sum(map(score, subsets)) / len(subsets)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(samples, data):
    k = data.draw(st.integers(1, len(samples)))
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(
        _mean_over_subsets(samples, k, any)
    )


def test_pass_at_k_by_hand():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)  # 1 − C(3,2)/C(5,2)
    assert pass_at_k(200, 200, 100) == 1.0
    assert pass_at_k(5, 1, 5) == 1.0


def _vote(gold):
    def score(subset):
        votes = Counter(answer for answer in subset if answer is not None)
        if not votes:
            return 0.0
        top = [answer for answer, n in votes.items() if n == max(votes.values())]
        return (gold in top) / len(top)

    return score


@given(st.lists(st.sampled_from([None, "7", "8", "9"]), min_size=1, max_size=9), st.data())
def test_majority_at_k_is_the_mean_vote_of_all_subsets(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    assert majority_at_k(answers, "7", k) == pytest.approx(
        _mean_over_subsets(answers, k, _vote("7"))
    )


def test_the_order_of_answers_does_not_matter():
    answers = ["7"] * 3 + ["8"] * 2
    assert majority_at_k(answers, "7", 3) == majority_at_k(answers[::-1], "7", 3)
    assert majority_at_k(answers, "7", 3) == pytest.approx(0.7)


def test_majorities_of_many_samples_take_no_enumeration():
    assert majority_at_k(["7"] * 60 + ["8"] * 40, "7", 51) > 0.9


def test_k_is_between_one_and_the_samples():
    with pytest.raises(DataError, match="between 1 and"):
        pass_at_k(3, 1, 4)
    with pytest.raises(DataError, match="cannot be correct"):
        pass_at_k(3, 4, 1)
