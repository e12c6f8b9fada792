"""Span corruption: source and target together give the text back; counts are T5's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isoflop.data.spans import SpanCorruptor

FIRST_SENTINEL, END = 1000, 2000
SENTINELS = range(FIRST_SENTINEL, FIRST_SENTINEL + 200)


def corruptor(fraction: float = 0.15, mean: float = 3.0, seed: int = 0) -> SpanCorruptor:
    return SpanCorruptor(SENTINELS, END, fraction, mean, seed)


def restored(source: list[int], target: list[int]) -> list[int]:
    """The text, by putting after each sentinel of the source what follows it in the target."""
    assert source[-1] == target[-1] == END
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in SENTINELS:
            span = spans.setdefault(token, [])
        else:
            span.append(token)
    text: list[int] = []
    for token in source[:-1]:
        text += spans.pop(token) if token in SENTINELS else [token]
    assert not spans
    return text


@given(
    n=st.integers(1, 300), fraction=st.sampled_from([0.15, 0.5]),
    mean=st.sampled_from([1.0, 3.0, 10.0]), row=st.integers(0, 10**9),
)  # fmt: skip
def test_source_and_target_give_the_text_back(
    n: int, fraction: float, mean: float, row: int
) -> None:
    ids = np.random.default_rng(n).integers(0, 999, n)
    found = corruptor(fraction, mean)(ids, row)
    assert restored(found.source.tolist(), found.target.tolist()) == ids.tolist()
    text = found.target[found.target < FIRST_SENTINEL]
    assert np.array_equal(text, ids[found.dropped])
    marks = found.target[(found.target >= FIRST_SENTINEL) & (found.target < END)]
    assert marks.tolist() == list(range(FIRST_SENTINEL, FIRST_SENTINEL + len(marks)))


@pytest.mark.parametrize(("n", "dropped", "spans"), [(512, 77, 26), (568, 85, 28), (128, 19, 6)])
def test_counts_are_those_of_t5(n: int, dropped: int, spans: int) -> None:
    # 568 tokens make a source of 512 and a target of 114 with their end tokens, as T5 has them.
    found = corruptor()(np.arange(n) % 999, 1)
    assert (corruptor().n_spans(n), int(found.dropped.sum())) == ((dropped, spans), dropped)
    assert len(found.source) == n - dropped + spans + 1
    assert len(found.target) == dropped + spans + 1
    if n == 568:
        assert (len(found.source), len(found.target)) == (512, 114)


def test_every_way_to_cut_is_equally_likely() -> None:
    # 7 tokens with 3 dropped in 2 spans: kept 4 in two parts (3 ways), dropped 3 in two (2 ways).
    model = SpanCorruptor(SENTINELS, END, 3 / 7, 1.5, 0)
    assert model.n_spans(7) == (3, 2)
    seen: dict[tuple[bool, ...], int] = {}
    for row in range(3000):
        key = tuple(model(np.arange(7), row).dropped.tolist())
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 6
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


def test_another_row_or_seed_drops_other_spans_and_the_same_row_the_same() -> None:
    ids = np.arange(100)
    first = corruptor()(ids, 3)
    assert np.array_equal(first.dropped, corruptor()(ids, 3).dropped)
    assert not np.array_equal(first.dropped, corruptor()(ids, 4).dropped)
    assert not np.array_equal(first.dropped, corruptor(seed=1)(ids, 3).dropped)
