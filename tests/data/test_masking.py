"""Masks: shares within binomial bounds, whole words, the truth kept in the labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from isoflop.data.loader import IGNORED
from isoflop.data.masking import Masker

BYTES = tuple(bytes([b]) for b in range(256))
MASK = 256


def masker(
    pieces: tuple[bytes, ...] = (*BYTES, b""), whole_words: bool = False, seed: int = 0,
    fraction: float = 0.15,
) -> Masker:  # fmt: skip
    return Masker(pieces, len(pieces) - 1, fraction, whole_words, seed)


def rows_of(text: str, width: int) -> np.ndarray:
    ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    return ids[: len(ids) // width * width].reshape(-1, width)


def test_fifteen_in_a_hundred_are_chosen_and_of_these_eighty_ten_ten() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (400, 100))
    masked = masker()(ids, np.arange(400), np.ones_like(ids, dtype=bool))
    chosen = masked.labels_BT != IGNORED
    assert (chosen.sum(1) == 15).all()
    n = int(chosen.sum())
    hidden = masked.ids_BT[chosen] == MASK
    same = masked.ids_BT[chosen] == ids[chosen]
    # A random token is the true one once in 256.
    for count, share in (
        (hidden.sum(), 0.8), (same.sum(), 0.1 + 0.1 / 256),
        ((~hidden & ~same).sum(), 0.1 * 255 / 256),
    ):  # fmt: skip
        low, high = stats.binom.interval(0.9999, n, share)
        assert low <= count <= high
    # Every place is as likely as any other, and every token as a random one.
    assert stats.chisquare(chosen.sum(0)).pvalue > 1e-4
    random = masked.ids_BT[chosen][~hidden & ~same]
    assert stats.chisquare(np.bincount(random // 16, minlength=16)).pvalue > 1e-4


def test_labels_invert_the_masking_and_nothing_else_is_touched() -> None:
    ids = np.random.default_rng(1).integers(0, 256, (20, 50))
    text = np.random.default_rng(2).random(ids.shape) < 0.7
    masked = masker(seed=5)(ids, np.arange(20), text)
    chosen = masked.labels_BT != IGNORED
    assert np.array_equal(np.where(chosen, masked.labels_BT, masked.ids_BT), ids)
    assert not (chosen & ~text).any()


def test_a_row_is_masked_alike_in_every_batch_and_otherwise_with_another_index_or_seed() -> None:
    ids = np.random.default_rng(1).integers(0, 256, (8, 64))
    text = np.ones_like(ids, dtype=bool)
    for whole_words in (False, True):
        whole = masker(whole_words=whole_words)(ids, np.arange(8), text)
        part = masker(whole_words=whole_words)(ids[5:7], np.array([5, 6]), text[5:7])
        assert np.array_equal(part.ids_BT, whole.ids_BT[5:7])
        assert np.array_equal(part.labels_BT, whole.labels_BT[5:7])
        other = masker(whole_words=whole_words)(ids, np.arange(8, 16), text)
        assert not np.array_equal(other.labels_BT, whole.labels_BT)
        other = masker(whole_words=whole_words, seed=1)(ids, np.arange(8), text)
        assert not np.array_equal(other.labels_BT, whole.labels_BT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss, of 12 laws.", ["loss", ",", " ", "of", " ", "12", " ", "laws", "."]),
        ("模型的loss是3。", ["模", "型", "的", "loss", "是", "3", "。"]),
        ("naïve 𠀀x😀", ["naïve", " ", "𠀀", "x", "😀"]),
    ],
)  # fmt: skip
def test_words_begin_where_a_reader_sees_them(text: str, words: list[str]) -> None:
    ids = rows_of(text, len(text.encode()))
    starts = np.flatnonzero(masker().word_starts(ids)[0])
    edges = [*starts.tolist(), ids.shape[1]]
    found = [text.encode()[a:b].decode() for a, b in pairwise(edges)]
    assert found == words


def test_whole_words_are_never_split_in_english_nor_chinese() -> None:
    draw = np.random.default_rng(3)
    words = ["loss", "ladder", "模", "型", "训", "练", "x", "12"]
    text = "".join(f"{word} " if word.isascii() else word for word in draw.choice(words, 9000))
    # Tokens of two bytes and more beside the single ones, as a BPE has them.
    ids = rows_of(text, 96)
    model = masker(whole_words=True)
    masked = model(ids, np.arange(len(ids)), np.ones_like(ids, dtype=bool))
    chosen = masked.labels_BT != IGNORED
    for row, starts in zip(chosen, model.word_starts(ids), strict=True):
        for word in np.split(row, np.flatnonzero(starts)[1:]):
            assert word.all() or not word.any()
    share = chosen.mean()
    assert 0.12 < share <= 0.15


def test_a_token_that_holds_parts_of_two_words_joins_them() -> None:
    pieces = (*BYTES, "型训".encode(), b"s a", b"")
    ids = np.array([[*"模".encode(), 256, *"练".encode(), ord("x"), 257, ord("b"), ord(" ")]])
    model = masker(pieces, whole_words=True)
    starts = model.word_starts(ids)[0].tolist()
    assert starts == [True, False, False, True, True, False, False, True, False, False, True]


def test_a_row_of_one_long_word_still_has_something_to_foretell() -> None:
    ids = rows_of("w" * 40, 40)
    masked = masker(whole_words=True)(ids, np.arange(1), np.ones_like(ids, dtype=bool))
    assert (masked.labels_BT != IGNORED).all()
    none = masker(whole_words=True)(ids, np.arange(1), np.zeros_like(ids, dtype=bool))
    assert (none.labels_BT == IGNORED).all()
