from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data.permutation import FEWEST_BITS, ROUNDS, permute

MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def by_hand(place: int, n: int, seed: int, epoch: int) -> int:
    """The published construction in plain integers, one place at a time."""
    key = splitmix64(splitmix64(seed) ^ epoch)
    stream = [splitmix64((key + i) & MASK) for i in range(2 * ROUNDS)]
    bits = max(FEWEST_BITS, (n - 1).bit_length())
    low_bits, high_bits = bits // 2, bits - bits // 2
    x = place
    while True:
        high, low = x >> low_bits, x & ((1 << low_bits) - 1)
        for r in range(ROUNDS):
            a, b = stream[r] | 1, stream[ROUNDS + r]
            if r % 2:
                low ^= ((high * a + b) & MASK) >> (64 - low_bits)
            else:
                high ^= ((low * a + b) & MASK) >> (64 - high_bits)
        x = high << low_bits | low
        if x < n:
            return x


@settings(deadline=None)
@given(n=st.integers(1, 400), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6))
def test_every_number_stands_somewhere_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(n), n, seed, epoch)) == list(range(n))


@settings(deadline=None)
@given(
    n=st.integers(1, 1 << 50), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6),
    places=st.lists(st.integers(0, 1 << 50), min_size=1, max_size=4),
)  # fmt: skip
def test_it_is_the_published_construction_computed_in_plain_integers(
    n: int, seed: int, epoch: int, places: list[int]
) -> None:
    asked = np.array([place % n for place in places], dtype=np.int64)
    expected = [by_hand(int(place), n, seed, epoch) for place in asked]
    assert permute(asked, n, seed, epoch).tolist() == expected


def test_the_hash_is_splitmix64() -> None:
    """First outputs for seed 1234567, as published with the reference implementation."""
    gamma, state = 0x9E3779B97F4A7C15, 1234567
    outputs = [splitmix64((state + i * gamma) & MASK) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("n", [4, 9])
def test_places_in_the_order_are_uniform(n: int) -> None:
    trials = 600
    drawn = np.array([permute(np.arange(2), n, seed) for seed in range(trials)])
    firsts = np.bincount(drawn[:, 0], minlength=n)
    pairs = np.zeros((n, n))
    np.add.at(pairs, (drawn[:, 0], drawn[:, 1]), 1)
    apart = pairs[~np.eye(n, dtype=bool)]
    for counts in (firsts, apart):
        expected = trials / counts.shape[0]
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        freedom = counts.shape[0] - 1
        # 99.99 % point of chi-square, by Wilson and Hilferty.
        limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3
        assert chi_square < limit


def test_neighbours_do_not_stay_neighbours() -> None:
    n = 100_000
    order = permute(np.arange(n), n, seed=3).astype(np.float64)
    for lag in (1, 2, 64):
        correlation = np.corrcoef(order[:-lag], order[lag:])[0, 1]
        assert abs(correlation) < 4 / n**0.5
    fixed = int((order == np.arange(n)).sum())
    assert fixed < 8  # one is expected


def test_the_shape_asked_for_is_the_shape_given() -> None:
    places = np.arange(12).reshape(3, 4)
    assert permute(places, 50, 1).shape == (3, 4)
    assert permute(np.arange(0), 50, 1).shape == (0,)
