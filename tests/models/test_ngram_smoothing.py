from __future__ import annotations

import numpy as np
import pytest

from isoflop.models.ngram_smoothing import (
    FALLBACK_DISCOUNTS,
    good_turing_factors,
    kneser_ney_discounts,
)


def occurring(times: dict[int, int]) -> np.ndarray:
    """Counts in which n_r n-grams occur r times."""
    return np.repeat(np.array(list(times)), list(times.values()))


def test_the_discounts_are_those_of_chen_and_goodman() -> None:
    # Y = 100 / 180; D1 = Y, D2 = 2 − 3 Y 20/40, D3+ = 3 − 4 Y 10/20.
    y = 100 / 180
    found = kneser_ney_discounts(occurring({1: 100, 2: 40, 3: 20, 4: 10, 9: 3}))
    assert found == pytest.approx((1 - 2 * y * 0.4, 2 - 1.5 * y, 3 - 2 * y), abs=1e-15)


@pytest.mark.parametrize("times", [{1: 5, 2: 3}, {2: 4, 3: 3}, {1: 10, 2: 1, 3: 9}, {}])
def test_counts_that_give_no_discounts_get_the_fixed_ones(times: dict[int, int]) -> None:
    assert kneser_ney_discounts(occurring(times)) == FALLBACK_DISCOUNTS


def test_good_turing_factors_leave_as_much_mass_as_was_seen_once() -> None:
    # Katz's factors are made so that Σ n_r (1 − d_r) r = n_1: the mass of the unseen.
    times = {1: 1000, 2: 400, 3: 220, 4: 140, 5: 100, 6: 75, 20: 11}
    factors = good_turing_factors(occurring(times))
    assert all(0 < factor < 1 for factor in factors)
    freed = sum(times[r] * r * (1 - d) for r, d in enumerate(factors, 1))
    assert freed == pytest.approx(times[1], rel=1e-12)


def test_a_count_of_which_nothing_can_be_estimated_is_not_discounted() -> None:
    assert good_turing_factors(occurring({7: 3})) == (1.0,) * 5
    factors = good_turing_factors(occurring({1: 50, 2: 20, 4: 6}))
    assert factors[2] == factors[4] == 1.0
