from __future__ import annotations

from collections.abc import Callable
from math import isclose

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED, Loader, Order, StreamLoader, eval_windows
from isoflop.data.permutation import permute
from isoflop.data.shards import Shards, Split
from isoflop.data.tokenizer import Tokenizer

EOS = 9


def split_of(documents: list[list[int]], kinds: list[int] | None = None) -> Split:
    """A split in memory; id k stands for k + 1 bytes, the EOS (9) for none."""
    tokens = np.array([t for d in documents for t in [*d, EOS]], dtype=np.uint16)
    lengths = [len(d) + 1 for d in documents]
    return Split(
        name="train",
        tokens=tokens,
        document_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        document_kinds=np.array(kinds or [0] * len(documents), dtype=np.uint8),
        kinds=("en", "zh"),
        n_bytes=sum(t + 1 for d in documents for t in d),
        eos_id=EOS,
        byte_lengths=np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], dtype=np.int32),
    )


def random_split(seed: int = 0, n_documents: int = 60) -> Split:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, 30, n_documents)
    documents = [draw.integers(0, 9, length).tolist() for length in lengths]
    return split_of(documents, draw.integers(0, 2, n_documents).tolist())


def test_a_window_by_hand() -> None:
    loader = Loader(split_of([[1, 2], [3, 4, 5], [6]]), seq_len=8, seed=0)
    window = loader.batch(0, 1)  # tokens 1 2 | 9 3 4 5 9 6 9: one window of 8 and its labels
    assert window.ids_BT.tolist() == [[1, 2, 9, 3, 4, 5, 9, 6]]
    assert window.labels_BT.tolist() == [[2, 9, IGNORED, 4, 5, 9, IGNORED, 9]]
    assert window.document_BT.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2]]
    assert window.n_labels == 6
    assert (window.ids_BT.dtype, window.labels_BT.dtype) == (np.int64, np.int64)
    assert window.document_BT.dtype == np.int32


@pytest.mark.parametrize("seq_len", [1, 7, 16])
def test_every_window_is_used_exactly_once_in_an_epoch(seq_len: int) -> None:
    split = random_split()
    # Tokens that say where they are, so that a window can be told from its content.
    split = Split(**{**vars(split), "tokens": np.arange(split.n_tokens), "eos_id": -1})
    loader = Loader(split, seq_len, seed=5)
    assert loader.n_windows == (split.n_tokens - 1) // seq_len
    for epoch in range(3):
        batch = loader.batch(epoch * loader.n_windows, loader.n_windows)
        firsts = np.sort(batch.ids_BT[:, 0])
        assert np.array_equal(firsts, np.arange(loader.n_windows) * seq_len)
        assert np.array_equal(batch.labels_BT, batch.ids_BT + 1)


def test_epochs_and_seeds_differ_in_order() -> None:
    split = random_split()
    loader = Loader(split, 8, seed=0)
    n = loader.n_windows
    orders = [loader.batch(epoch * n, n).ids_BT for epoch in range(2)]
    orders.append(Loader(split, 8, seed=1).batch(0, n).ids_BT)
    assert not any(np.array_equal(orders[a], orders[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    ranks=st.integers(1, 5),
    first=st.integers(0, 500),
)
def test_the_order_depends_on_neither_batch_size_nor_ranks(
    sizes: list[int], ranks: int, first: int
) -> None:
    split, total = random_split(), sum(sizes)
    whole = Loader(split, 8, seed=2).batch(first, total)
    starts = first + np.cumsum([0, *sizes])
    pieces = [
        Loader(split, 8, seed=2).batch(int(a), s) for a, s in zip(starts, sizes, strict=False)
    ]
    assert np.array_equal(np.concatenate([p.labels_BT for p in pieces]), whole.labels_BT)
    one_loader = Loader(split, 8, seed=2)
    for rank in range(ranks):
        mine = one_loader.windows(np.arange(first + rank, first + total, ranks))
        assert np.array_equal(mine.ids_BT, whole.ids_BT[rank::ranks])
        assert np.array_equal(mine.document_BT, whole.document_BT[rank::ranks])


def test_going_back_gives_the_same_windows_again() -> None:
    loader = Loader(random_split(), 8, seed=2)
    n = loader.n_windows
    before = loader.batch(0, 5).ids_BT
    loader.batch(7 * n, 5)
    assert np.array_equal(loader.batch(0, 5).ids_BT, before)


@settings(deadline=None)
@given(seed=st.integers(0, 50), seq_len=st.integers(1, 40))
def test_documents_do_not_see_each_other(seed: int, seq_len: int) -> None:
    split = random_split(seed)
    windows = eval_windows(split, seq_len)
    n_windows = (split.n_tokens - 1) // seq_len
    order = permute(np.arange(n_windows), n_windows, 0)
    # Oracle: which document each stored token lies in, counted out one by one.
    owner = [
        d
        for d in range(split.n_documents)
        for _ in range(split.document_starts[d], split.document_starts[d + 1])
    ]
    for ids, labels, documents, kinds, w in zip(
        windows.ids_BT, windows.labels_BT, windows.document_BT, windows.kind_BT, order, strict=True
    ):
        here = owner[w * seq_len : (w + 1) * seq_len]
        after = owner[w * seq_len + 1 : (w + 1) * seq_len + 1]
        assert [a == b for a in here for b in here] == [
            a == b for a in documents.tolist() for b in documents.tolist()
        ]
        assert documents[0] == 0
        assert kinds.tolist() == [split.document_kinds[d] for d in here]
        for t in range(seq_len):
            following = int(split.tokens[w * seq_len + t + 1])
            assert ids[t] == split.tokens[w * seq_len + t]
            assert labels[t] == (following if here[t] == after[t] else IGNORED)


@settings(deadline=None)
@given(seed=st.integers(0, 50), seq_len=st.integers(1, 40))
def test_positions_count_within_each_document(seed: int, seq_len: int) -> None:
    batch = Loader(random_split(seed), seq_len, seed=seed).batch(0, 5)
    for documents, positions in zip(batch.document_BT, batch.position_BT, strict=True):
        before = documents.tolist()
        assert positions.tolist() == [before[:t].count(d) for t, d in enumerate(before)]


def test_streams_run_on_from_step_to_step() -> None:
    split = random_split()
    loader = StreamLoader(split, seq_len=7, rows=4)
    steps = loader.n_windows // 4
    rows = np.concatenate([loader.batch(s * 4, 4).ids_BT for s in range(steps)], axis=1)
    labels = np.concatenate([loader.batch(s * 4, 4).labels_BT for s in range(steps)], axis=1)
    length = (split.n_tokens - 1) // 4 // 7 * 7
    for row in range(4):  # each stream is a stretch of the split, none missing, none twice
        assert rows[row].tolist() == split.tokens[row * length : (row + 1) * length].tolist()
    assert rows[:, 1:].tolist() == labels[:, :-1].tolist()
    again = loader.batch(loader.n_windows, 4)
    assert np.array_equal(again.ids_BT, loader.batch(0, 4).ids_BT), "the next epoch is the same"
    assert not again.document_BT.any()
    with pytest.raises(DataError, match="do not fill 400 streams of 7"):
        StreamLoader(split, seq_len=7, rows=400)


def test_text_bytes_are_those_of_the_decoded_labels(shards: Shards, tokenizer: Tokenizer) -> None:
    for max_tokens in (None, 5_000):
        windows = eval_windows(shards.held_out, 64, max_tokens)
        counted = windows.labels_BT[windows.labels_BT != IGNORED]
        assert windows.text_bytes == len(tokenizer.decode_bytes(counted))
        assert windows.text_bytes == sum(windows.text_bytes_by_kind.values())
        assert set(windows.kinds) == {"code", "en", "mixed", "zh"}


def test_text_bytes_of_a_whole_split_lack_only_first_tokens_and_the_tail() -> None:
    split = split_of([[1, 2, 3], [4], [5, 6, 7, 8]], kinds=[0, 1, 0])
    windows = eval_windows(split, seq_len=2)  # 11 tokens: 5 windows, nothing left over
    expected = {"en": (3 + 4) + (7 + 8 + 9), "zh": 0}
    assert windows.text_bytes_by_kind == expected
    assert windows.text_bytes == sum(expected.values())


def test_bits_per_byte_of_a_uniform_model_is_its_closed_form(shards: Shards) -> None:
    windows = eval_windows(shards.held_out, 64)
    nats = windows.n_labels * np.log(shards.vocab_size)
    bits_per_byte = nats / np.log(2) / windows.text_bytes
    tokens_per_byte = windows.n_labels / windows.text_bytes
    assert isclose(bits_per_byte, 9 * tokens_per_byte)  # log2(512) = 9


def test_more_evaluation_tokens_add_to_fewer() -> None:
    split = random_split()
    few, many = eval_windows(split, 8, 80), eval_windows(split, 8, 160)
    assert (len(few.ids_BT), len(many.ids_BT)) == (10, 20)
    assert np.array_equal(many.ids_BT[:10], few.ids_BT)
    assert np.array_equal(eval_windows(split, 8, 80).ids_BT, few.ids_BT)


def test_a_split_shorter_than_a_window_is_refused() -> None:
    split = split_of([[1, 2, 3]])
    Loader(split, 3, seed=0)
    with pytest.raises(DataError, match="4 tokens do not fill one window of 4"):
        Loader(split, 4, seed=0)


@pytest.mark.parametrize("make", [lambda s: Loader(s, 5, 3), lambda s: StreamLoader(s, 5, 4)])
def test_stretches_are_where_the_windows_stand(make: Callable[[Split], Order]) -> None:
    split = random_split()
    order = make(split)
    found = order.stretches(range(7, 19))[""]
    cut = [split.tokens[a : a + n] for a, n in zip(found.starts_N, found.lengths_N, strict=True)]
    assert np.array_equal(cut, order.windows(range(7, 19)).ids_BT)
