"""Signatures against the Jaccard similarity that they estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isoflop.data import shingles
from isoflop.data.minhash import (
    BANDS,
    EMPTY,
    PERMUTATIONS,
    agreement,
    band_keys,
    has_signature,
    signatures,
)


def words(start: int, stop: int) -> str:
    return " ".join(f"w{number}" for number in range(start, stop))


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("size", [30, 600])
def test_agreement_estimates_jaccard_without_bias_and_as_surely_as_a_binomial(
    similarity: float, size: int
) -> None:
    shared = round(2 * size * similarity / (1 + similarity))
    texts: list[str] = []
    n_pairs = 200
    for pair in range(n_pairs):
        start = 10_000 * pair
        texts.append(words(start, start + size + 4))
        texts.append(words(start + size - shared, start + 2 * size - shared + 4))
    exact = shared / (2 * size - shared)
    found = agreement(signatures(texts), np.arange(0, 2 * n_pairs, 2), np.arange(1, 2 * n_pairs, 2))
    deviation = math.sqrt(exact * (1 - exact) / PERMUTATIONS)
    assert abs(found.mean() - exact) < 4 * deviation / math.sqrt(n_pairs)
    assert 0.85 * deviation < found.std() < 1.15 * deviation


def test_a_signature_depends_on_its_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [words(0, 3000), "short text", words(7, 80), "", "一二三四五六七八九十" * 40]
    together = signatures(texts)
    alone = np.concatenate([signatures([text]) for text in texts])
    monkeypatch.setattr(shingles, "BLOCK_UNITS", 2048)
    in_blocks = signatures(texts)
    assert (together == alone).all()
    assert (together == in_blocks).all()


def test_a_text_of_fewer_than_five_tokens_has_no_signature() -> None:
    found = signatures(["one two three four", "one two three four five", "一二三四", ""])
    assert has_signature(found).tolist() == [False, True, False, False]
    assert (found[[0, 2, 3]] == EMPTY).all()


def test_keys_are_equal_where_all_five_numbers_of_the_band_are() -> None:
    draw = np.random.default_rng(3)
    rows = np.tile(draw.integers(0, EMPTY, PERMUTATIONS, dtype=np.uint32), (3, 1))
    rows[1, 7] ^= 1  # in the second band
    rows[2, :5] = rows[2, 5:10]  # the first band's numbers are those of the second
    keys = band_keys(rows)
    assert keys.shape == (3, BANDS)
    assert (keys[0] == keys[1]).tolist() == [band != 1 for band in range(BANDS)]
    assert np.unique(keys[2]).size == BANDS


def test_signatures_stay_what_they_are_on_disk() -> None:
    found = signatures(["The law of large numbers holds. 大数定律成立。"])
    assert found[0, :3].tolist() == GOLDEN_SIGNATURE
    assert band_keys(found)[0, :2].tolist() == GOLDEN_KEYS


GOLDEN_SIGNATURE = [571449941, 196411037, 254590228]
GOLDEN_KEYS = [11135399915453241064, 1502382448781680435]
