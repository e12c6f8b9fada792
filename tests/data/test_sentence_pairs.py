"""Pairs of sentences: half of them random, from another document, each token's place known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from isoflop.core.errors import DataError
from isoflop.data.sentence_pairs import PairLoader, PairMarks
from isoflop.data.shards import Split

EOS, PAD, CLS, SEP, STOP = 900, 901, 902, 903, 7
MARKS = PairMarks(CLS, SEP, PAD)
BYTES = tuple(b"." if index == STOP else b"x" if index < EOS else b"" for index in range(904))


def split_of(lengths: list[int]) -> Split:
    """Document d holds tokens that are d modulo 8, rising, and every fifth ends a sentence."""
    tokens: list[int] = []
    starts = [0]
    for number, length in enumerate(lengths):
        body = [8 * ((10 * number + i) % 100) + 8 + number % 7 for i in range(length - 1)]
        body[4::5] = [STOP] * len(body[4::5])
        tokens += [*body, EOS]
        starts.append(len(tokens))
    return Split(
        name="train", tokens=np.array(tokens, np.uint16), document_starts=np.array(starts),
        document_kinds=np.zeros(len(lengths), np.uint8), kinds=("en",), n_bytes=len(tokens),
        eos_id=EOS, byte_lengths=np.array([len(b) for b in BYTES], np.int32),
    )  # fmt: skip


def loader(split: Split, seq_len: int = 32, batch: int = 256, seed: int = 0) -> PairLoader:
    return PairLoader(split, seq_len, batch, seed, MARKS, BYTES)


def sides(ids: np.ndarray, types: np.ndarray) -> tuple[list[int], list[int]]:
    """(A, B) of a row."""
    row = ids[ids != PAD].tolist()
    assert row[0] == CLS
    assert row[-1] == SEP
    assert row.count(SEP) == 2
    middle = row.index(SEP)
    assert types.tolist() == [0] * (middle + 1) + [1] * (len(row) - middle - 1) + [0] * (
        len(ids) - len(row)
    )
    return row[1:middle], row[middle + 1 : -1]


def test_a_true_second_sentence_follows_in_its_document_and_a_random_one_is_of_another() -> None:
    split = split_of([50, 9, 120, 33, 70, 2])
    text = split.tokens.tolist()
    pairs = loader(split)
    n_random, n = 0, 0
    for index in range(20 * pairs.n_batches):
        rows = pairs.batch(index)
        assert rows.ids_BT.size <= 256
        assert np.array_equal(rows.padding_BT, rows.ids_BT == PAD)
        assert np.array_equal(rows.text_BT, rows.ids_BT < EOS)
        for ids, types, random in zip(rows.ids_BT, rows.type_BT, rows.random_B, strict=True):
            a, b = sides(ids, types)
            documents = {t % 8 for t in (*a, *b) if t != STOP}
            n, n_random = n + 1, n_random + int(random)
            if not random:
                assert any(text[i : i + len(a + b)] == a + b for i in range(len(text)))
            else:
                assert not a or not b or len(documents) == 2 or {*a} == {STOP} or {*b} == {STOP}
            if len(a) >= 5 and STOP in (a + b)[:-1] and not random:
                assert a[-1] == STOP, "cut where a sentence ends"
    # The document of one token has no true second sentence: a twelfth of the pieces, or less.
    low, high = stats.binom.interval(0.9999, n, 0.5)
    assert low <= n_random <= high + n / 10


def test_an_epoch_deals_every_token_once_where_nothing_is_random() -> None:
    split = split_of([50, 9, 120, 33, 70])
    pairs = loader(split)
    rows = [pairs.batch(index) for index in range(pairs.n_batches)]
    assert sorted(np.concatenate([r.rows_B for r in rows]).tolist()) == list(
        range(pairs.split.n_documents)
    )
    assert int(np.diff(pairs.split.document_starts).sum()) == split.n_tokens
    again = pairs.batch(pairs.n_batches)
    assert again.rows_B.min() >= pairs.split.n_documents, "another epoch, other rows"


def test_a_batch_is_the_same_at_every_call_and_another_with_another_seed() -> None:
    split = split_of([50, 9, 120, 33, 70])
    first, again, other = (
        loader(split).batch(3),
        loader(split).batch(3),
        loader(split, seed=1).batch(3),
    )
    assert np.array_equal(first.ids_BT, again.ids_BT)
    assert first.ids_BT.shape != other.ids_BT.shape or not np.array_equal(
        first.ids_BT, other.ids_BT
    )


def test_one_document_gives_no_random_sentences_and_says_so() -> None:
    with pytest.raises(DataError, match="another document"):
        loader(split_of([50]))


def test_stretches_hold_both_sentences_of_every_pair() -> None:
    split = split_of([50, 9, 120, 33, 70, 2])
    pairs = loader(split)
    for index in range(2 * pairs.n_batches):
        rows, found = pairs.batch(index), pairs.stretches(index)
        cut = [
            split.tokens[a : a + n].tobytes()
            for a, n in zip(found.starts_N, found.lengths_N, strict=True)
        ]
        n_rows = len(rows.ids_BT)
        assert len(cut) == n_rows + rows.random_B.sum()
        others = iter(cut[n_rows:])
        for ids, types, is_random, own in zip(
            rows.ids_BT, rows.type_BT, rows.random_B, cut, strict=False
        ):
            first, second = (np.array(side, np.uint16).tobytes() for side in sides(ids, types))
            assert first in own
            assert second in (next(others) if is_random else own)
