from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED
from isoflop.data.packing import PackedLoader, _best_fit, documents_cut_by_stream, pack
from isoflop.data.shards import Split

EOS = 0
DOCUMENTS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def split_of(lengths: list[int]) -> Split:
    """Documents of these lengths whose tokens are all different, so that each can be found."""
    tokens, next_token = [], 1
    for length in lengths:
        tokens += [*range(next_token, next_token + length), EOS]
        next_token += length
    sizes = [length + 1 for length in lengths]
    return Split(
        name="train",
        tokens=np.array(tokens, dtype=np.uint32),
        document_starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        document_kinds=np.zeros(len(lengths), dtype=np.uint8),
        kinds=("en",),
        n_bytes=0,
        eos_id=EOS,
        byte_lengths=np.zeros(next_token, dtype=np.int32),
    )


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Room left in each bin after best-fit decreasing as the books say it."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 24), min_size=1, max_size=120), capacity=st.integers(24, 30))
def test_bins_are_filled_as_best_fit_decreasing_fills_them_one_by_one(
    lengths: list[int], capacity: int
) -> None:
    falling = np.array(sorted(lengths, reverse=True))
    bins = _best_fit(falling, capacity)
    used = np.bincount(bins, weights=falling).astype(int)
    assert bins.max() + 1 == len(used)
    assert sorted((capacity - used).tolist()) == one_by_one(lengths, capacity)


@settings(deadline=None)
@given(lengths=DOCUMENTS, seq_len=st.integers(1, 25), seed=st.integers(0, 5))
def test_stretches_are_where_the_tokens_of_the_windows_stand(
    lengths: list[int], seq_len: int, seed: int
) -> None:
    split = split_of(lengths)
    loader = PackedLoader(split, seq_len, seed)
    asked = range(2, 2 + loader.n_windows, 2)
    found = loader.stretches(asked)[""]
    places = [
        range(start, start + length)
        for start, length in zip(found.starts_N, found.lengths_N, strict=True)
    ]
    told = sorted(int(split.tokens[i]) for each in places for i in each if split.tokens[i] != EOS)
    dealt = loader.windows(asked).ids_BT
    assert told == sorted(dealt[dealt != EOS].tolist())


@settings(deadline=None)
@given(lengths=DOCUMENTS, seq_len=st.integers(1, 25), seed=st.integers(0, 5))
def test_every_token_is_dealt_once_an_epoch_with_the_label_that_follows_it(
    lengths: list[int], seq_len: int, seed: int
) -> None:
    split = split_of(lengths)
    loader = PackedLoader(split, seq_len, seed)
    after = {int(a): int(b) for a, b in zip(split.tokens, split.tokens[1:], strict=False) if a}
    for epoch in range(2):
        batch = loader.batch(epoch * loader.n_windows, loader.n_windows)
        words = batch.ids_BT[batch.ids_BT != EOS]
        assert sorted(words) == list(range(1, sum(lengths) + 1))
        for ids, labels in zip(batch.ids_BT.ravel(), batch.labels_BT.ravel(), strict=True):
            assert labels == (IGNORED if ids == EOS else after[ids])
        padded = batch.ids_BT.size - split.n_tokens
        assert loader.packing.padding == pytest.approx(padded / batch.ids_BT.size)


@settings(deadline=None)
@given(lengths=DOCUMENTS, seq_len=st.integers(2, 25))
def test_pieces_of_different_documents_do_not_see_each_other(
    lengths: list[int], seq_len: int
) -> None:
    split = split_of(lengths)
    loader = PackedLoader(split, seq_len, seed=1)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    batch = loader.batch(0, loader.n_windows)
    for ids, documents, positions in zip(
        batch.ids_BT, batch.document_BT, batch.position_BT, strict=True
    ):
        for number in np.unique(documents):
            here = ids[documents == number]
            owners = owner[here[here != EOS] - 1]
            assert len(set(owners.tolist())) <= 1
            assert np.array_equal(positions[documents == number], np.arange(here.shape[0])), (
                "positions begin anew"
            )
        assert (np.diff(documents) >= 0).all()


def test_only_documents_longer_than_a_window_are_cut() -> None:
    split = split_of([9, 4, 4, 21, 2, 2, 2])  # with the EOS: 10, 5, 5, 22, 3, 3, 3
    packing = pack(split, 10, seed=0)
    # 10 | 10 | 10 (the first two of 22) | 5 + 5 | 3 + 3 + 3 … and the rest 2 of 22 fits nowhere
    assert packing.n_bins == 6
    assert packing.documents_cut == 1 / 7
    assert packing.padding == pytest.approx(9 / 60)
    assert documents_cut_by_stream(split, 10) == 2 / 7  # tokens 20 to 41, and 48 to 50


def test_padding_of_web_like_lengths_is_small() -> None:
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(5.5, 1.2, 5000), 1, 20_000).astype(int).tolist()
    split = split_of(lengths)
    packing = pack(split, 1024, seed=0)
    assert packing.padding < 0.001
    assert documents_cut_by_stream(split, 1024) > 0.3


@settings(deadline=None)
@given(first=st.integers(0, 300), ranks=st.integers(1, 4))
def test_the_order_depends_on_the_index_alone(first: int, ranks: int) -> None:
    split = split_of([5, 30, 2, 7, 7, 11, 0, 19] * 5)
    whole = PackedLoader(split, 12, seed=4).batch(first, 20)
    other = PackedLoader(split, 12, seed=4)
    for rank in range(ranks):
        mine = other.windows(np.arange(first + rank, first + 20, ranks))
        assert np.array_equal(mine.ids_BT, whole.ids_BT[rank::ranks])
        assert np.array_equal(mine.document_BT, whole.document_BT[rank::ranks])


def test_a_split_without_documents_is_refused() -> None:
    with pytest.raises(DataError, match="no document to pack"):
        pack(split_of([]), 8, seed=0)
