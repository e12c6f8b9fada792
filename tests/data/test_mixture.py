from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.data.loader import Order, Stretches, Windows
from isoflop.data.mixture import (
    BLOCK_WINDOWS,
    MixtureLoader,
    Source,
    tempered,
    weights_at,
)


class Marked(Order):
    """Windows that say which source they are of and which of its windows they are."""

    def __init__(self, mark: int, n_windows: int = 1000) -> None:
        self.mark, self.n_windows = mark, n_windows

    def windows(self, indices: npt.ArrayLike) -> Windows:
        asked = np.asarray(indices, dtype=np.int64)
        ids = np.stack([np.full(asked.shape, self.mark), asked], axis=1)
        return Windows(ids, ids + 1, np.zeros(ids.shape, dtype=np.int32))


def mixture(weights: list[float], n_windows: int, sizes: tuple[int, ...] = ()) -> MixtureLoader:
    return MixtureLoader(
        [
            Source(f"s{i}", Marked(i, *sizes[i : i + 1]), ((0.0, weight),))
            for i, weight in enumerate(weights)
        ],
        n_windows,
    )


WEIGHTS = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6)


@settings(deadline=None)
@given(weights=WEIGHTS, blocks=st.integers(1, 12))
def test_realised_counts_follow_the_weights_to_the_window(
    weights: list[float], blocks: int
) -> None:
    loader = mixture(weights, blocks * BLOCK_WINDOWS)
    total = sum(map(Fraction, weights))
    dealt = loader.batch(0, blocks * BLOCK_WINDOWS).ids_BT[:, 0]
    for end in range(1, blocks + 1):
        counts = np.bincount(dealt[: end * BLOCK_WINDOWS], minlength=len(weights))
        assert counts.sum() == end * BLOCK_WINDOWS
        for count, weight in zip(counts, weights, strict=True):
            target = Fraction(weight) / total * end * BLOCK_WINDOWS
            assert abs(int(count) - target) <= 1 + Fraction(1, 10**6)


def test_small_weights_have_their_turn() -> None:
    n = 320 * BLOCK_WINDOWS
    loader = mixture([0.9999, 0.0001], n)
    assert loader.realised(n)["s1"].share * n == 2  # 2.048 windows


@settings(deadline=None)
@given(weights=WEIGHTS, first=st.integers(0, 5000), sizes=st.lists(st.integers(1, 40), max_size=8))
def test_a_window_depends_on_its_index_alone(
    weights: list[float], first: int, sizes: list[int]
) -> None:
    whole = mixture(weights, 4000).batch(0, first + 400).ids_BT
    other = mixture(weights, 4000)
    for size in sizes:  # batches in any size and order, from a loader of its own
        assert np.array_equal(other.batch(first, size).ids_BT, whole[first : first + size])
    ranks = [other.windows(np.arange(first + rank, first + 400, 3)).ids_BT for rank in range(3)]
    for rank in range(3):
        assert np.array_equal(ranks[rank], whole[first + rank : first + 400 : 3])


def test_each_source_is_gone_through_in_its_own_order_without_gaps() -> None:
    ids = mixture([0.5, 0.3, 0.2], 5000).batch(0, 5000).ids_BT
    for mark in range(3):
        own = ids[ids[:, 0] == mark][:, 1]
        assert own.tolist() == list(range(own.shape[0]))


def test_every_stretch_is_nearly_as_mixed_as_the_whole() -> None:
    weights = [0.6, 0.3, 0.1]
    marks = mixture(weights, 4096).batch(0, 4096).ids_BT[:, 0]
    for start in range(0, 4096, 40):
        counts = np.bincount(marks[start : start + 40], minlength=3)[:3]
        length = min(40, 4096 - start)
        assert np.abs(counts - np.array(weights) * length).max() <= 2.5


def test_a_curriculum_follows_its_points() -> None:
    n = 64 * BLOCK_WINDOWS
    sources = [
        Source("easy", Marked(0), ((0.0, 1.0), (0.5, 0.0))),
        Source("hard", Marked(1), ((0.0, 0.0), (0.5, 1.0))),
    ]
    loader = MixtureLoader(sources, n)
    marks = loader.batch(0, n).ids_BT[:, 0]
    # Linear from 0 to 1 over the first half, then 1: the areas under the line.
    for end, expected in ((0.25, 0.0625), (0.5, 0.25), (1.0, 0.75)):
        assert marks[: int(end * n)].sum() / n == pytest.approx(expected, abs=1e-3)
        realised = loader.realised(int(end * n))
        assert realised["hard"].share * end == pytest.approx(expected, abs=1e-3)
    assert weights_at(sources, 0.25) == [0.5, 0.5]
    assert loader.batch(n + 5, 3).ids_BT[:, 0].tolist() == [1, 1, 1], "the last weights go on"


def test_realised_counts_are_those_dealt() -> None:
    loader = mixture([0.7, 0.3], 3000, sizes=(100, 400))
    marks = loader.batch(0, 3000).ids_BT[:, 0]
    for n in (0, 1, 777, 1024, 2999):
        realised = loader.realised(n)
        ones = int(marks[:n].sum())
        assert realised["s1"].share == ones / max(1, n)
        assert realised["s1"].epochs == ones / 400
        assert realised["s0"].epochs == (n - ones) / 100


def test_temperature_flattens() -> None:
    assert tempered([1, 3], 1.0) == [0.25, 0.75]
    assert tempered([1, 9], 2.0) == pytest.approx([0.25, 0.75])
    assert tempered([1, 9], 1e9) == pytest.approx([0.5, 0.5])
    with pytest.raises(DataError, match="must be positive"):
        tempered([1, 2], 0.0)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (((0.0, -1.0),), "no weight below 0"),
        (((0.5, 1.0), (0.5, 2.0)), "progress rising"),
        (((0.0, 1.0), (1.5, 2.0)), "within 0 to 1"),
        ((), "are not"),
        (((0.0, float("nan")),), "are not"),
        (((0.0, 1.0), (1.0, 0.0)), "all weights are zero at 100% of the training"),
    ],
)
def test_impossible_weights_are_refused(
    points: tuple[tuple[float, float], ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        MixtureLoader([Source("a", Marked(0), points)], 100)


def test_two_sources_of_one_name_are_refused() -> None:
    twice = [Source("a", Marked(0), ((0.0, 1.0),)), Source("a", Marked(1), ((0.0, 1.0),))]
    for sources in (twice, []):
        with pytest.raises(DataError, match="a name of its own"):
            MixtureLoader(sources, 100)


def test_stretches_are_told_source_by_source() -> None:
    class Placed(Marked):
        def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
            asked = np.asarray(indices, dtype=np.int64)
            return {"": Stretches(asked, np.full_like(asked, self.mark))}

    loader = MixtureLoader(
        [Source(f"s{i}", Placed(i), ((0.0, weight),)) for i, weight in enumerate((0.6, 0.3, 0.1))],
        400,
    )
    asked = range(70, 90)
    dealt = loader.windows(asked).ids_BT
    found = loader.stretches(asked)
    for number in range(3):
        own = found[f"s{number}"]
        assert own.starts_N.tolist() == dealt[dealt[:, 0] == number, 1].tolist()
        assert set(own.lengths_N.tolist()) == {number}
    assert loader.stretches([0]).keys() == {"s0"}, "the only source of the window"
