from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.data.buckets import BucketLoader, bucket_bounds, in_pieces
from isoflop.data.loader import IGNORED
from isoflop.data.shards import Split

EOS = 0


def split_of(lengths: list[int]) -> Split:
    """Documents of these lengths (the EOS not counted), each token saying its document."""
    tokens = [t for d, length in enumerate(lengths, 1) for t in [*[d] * length, EOS]]
    return Split(
        name="train",
        tokens=np.array(tokens, dtype=np.uint16),
        document_starts=np.concatenate([[0], np.cumsum(np.array(lengths, dtype=int) + 1)]),
        document_kinds=np.zeros(len(lengths), dtype=np.uint8),
        kinds=("en",),
        n_bytes=0,
        eos_id=EOS,
        byte_lengths=np.zeros(len(lengths) + 1, dtype=np.int32),
    )


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_every_document_comes_once_an_epoch_within_the_tokens_of_a_batch(
    lengths: list[int], seed: int
) -> None:
    loader = BucketLoader(split_of(lengths), max_len=40, batch_tokens=100, seed=seed)
    for epoch in range(2):
        seen: list[int] = []
        for place in range(loader.n_windows):
            batch = loader.batch(epoch * loader.n_windows + place, 1)
            assert batch.ids_BT.size <= 100
            seen += batch.ids_BT[:, 0].tolist()
        assert sorted(seen) == list(range(1, len(lengths) + 1))


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS)
def test_rows_are_documents_with_their_labels_and_padding_apart(lengths: list[int]) -> None:
    loader = BucketLoader(split_of(lengths), max_len=40, batch_tokens=100, seed=0)
    batch = loader.batch(0, loader.n_windows)
    for ids, labels, parts in zip(batch.ids_BT, batch.labels_BT, batch.document_BT, strict=True):
        length = lengths[ids[0] - 1]
        whole = [ids[0]] * length + [EOS]
        kept = whole[:40]
        assert ids.tolist() == kept + [EOS] * (len(ids) - len(kept))
        assert labels.tolist() == kept[1:] + [IGNORED] * (len(ids) - len(kept) + 1)
        assert parts.tolist() == [0] * len(kept) + [1] * (len(ids) - len(kept))


def test_a_batch_is_a_function_of_its_index_alone() -> None:
    split = split_of(np.random.default_rng(0).integers(1, 60, 200).tolist())
    one, other = (BucketLoader(split, 40, 200, seed=3) for _ in range(2))
    n = one.n_windows
    for index in (5 * n + 2, 3, n - 1, n, 5 * n + 2):
        assert np.array_equal(one.batch(index, 1).ids_BT, other.batch(index, 1).ids_BT)
    orders = [[tuple(one.documents(e * n + i)) for i in range(n)] for e in range(2)]
    assert orders[0] != orders[1]
    assert {frozenset(d) for d in orders[0]} != {frozenset(d) for d in orders[1]}


def test_little_is_padding() -> None:
    lengths = np.clip(np.random.default_rng(1).lognormal(4, 1, 3000), 1, 500).astype(int).tolist()
    loader = BucketLoader(split_of(lengths), max_len=512, batch_tokens=4096, seed=0)
    batches = [loader.batch(i, 1) for i in range(loader.n_windows)]
    padding = sum(int(b.document_BT.sum()) for b in batches) / sum(b.ids_BT.size for b in batches)
    assert padding < 0.12
    longest = max(lengths) + 1
    assert 1 - (sum(lengths) + 3000) / (3000 * longest) > 0.6, "padded to one length it is most"


def test_bounds_rise_to_the_longest() -> None:
    assert bucket_bounds(16, 40) == [16, 20, 25, 31, 38, 40]
    assert bucket_bounds(16, 9) == [9]
    assert bucket_bounds(1, 4) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("lengths", "batch_tokens", "bounds"),
    [([], 100, None), ([3], 39, None), ([3], 100, (20, 10, 40)), ([3], 100, (10, 20))],
)
def test_impossible_buckets_are_refused(
    lengths: list[int], batch_tokens: int, bounds: tuple[int, ...] | None
) -> None:
    with pytest.raises(DataError, match="Let the bounds rise"):
        BucketLoader(split_of(lengths), 40, batch_tokens, 0, bounds)


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS, longest=st.integers(2, 20))
def test_pieces_are_few_and_even_and_leave_nothing_out(lengths: list[int], longest: int) -> None:
    whole = split_of(lengths)
    cut = in_pieces(whole, longest)
    sizes = np.diff(cut.document_starts)
    assert set(whole.document_starts) <= set(cut.document_starts)
    assert sizes.sum() == whole.n_tokens
    expected: list[int] = []
    for length in np.diff(whole.document_starts).tolist():
        n = -(-length // longest)
        expected += [length // n] * (n - length % n) + [length // n + 1] * (length % n)
    owner = np.searchsorted(whole.document_starts, cut.document_starts[:-1], side="right")
    found = [size for d in np.unique(owner) for size in sorted(sizes[owner == d].tolist())]
    assert found == expected
    assert cut.n_documents == len(expected)


def test_tokens_that_will_be_added_count_in_a_batch() -> None:
    loader = BucketLoader(split_of([39] * 30), max_len=40, batch_tokens=130, seed=0, added=3)
    assert len(loader.batch(0, 1).ids_BT) == 3
    with pytest.raises(DataError):
        BucketLoader(split_of([39] * 30), max_len=40, batch_tokens=42, seed=0, added=3)


@settings(deadline=None, max_examples=25)
@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_stretches_are_where_the_documents_of_a_batch_stand(lengths: list[int], seed: int) -> None:
    split = split_of(lengths)
    loader = BucketLoader(split, max_len=40, batch_tokens=100, seed=seed)
    for index in (0, loader.n_windows):
        found = loader.stretches([index])[""]
        for start, length, row in zip(
            found.starts_N, found.lengths_N, loader.windows([index]).ids_BT, strict=True
        ):
            assert split.tokens[start : start + length].tolist() == row[:length].tolist()
