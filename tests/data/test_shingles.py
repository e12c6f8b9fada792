"""Shingles against sets of token tuples made by a plain loop over characters."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data import shingles
from isoflop.data.shingles import shingle_sets, token_blocks

TEXT = st.text(st.sampled_from("ab cB.d_1é，\n\t中国人의 아ก้Ａ１👍\U00020000"), max_size=60)


def tokens(text: str) -> list[str]:
    """Words of letters, digits and marks; ideographs, Thai and astral characters one by one."""
    found: list[str] = []
    inside = False
    for char in text:
        folded = unicodedata.normalize("NFKC", char).lower()
        if len(char.encode("utf-16-le", "surrogatepass")) == 4 or char in "中国人ก้":
            found.append(char)
            inside = False
        elif char == "_" or char.isalnum() or unicodedata.category(char).startswith("M"):
            found[-1:] = [found[-1] + folded] if inside else [*found[-1:], folded]
            inside = True
        else:
            inside = False
    return found


def runs(texts: list[str], n: int) -> list[list[int]]:
    """The hashes of all runs of n tokens of each text."""
    found: list[list[int]] = [[] for _ in texts]
    for block in token_blocks(texts):
        hashes, starts = block.runs(n)
        which = np.searchsorted(block.bounds, starts, side="right") - 1
        for text, value in zip((block.first + which).tolist(), hashes.tolist(), strict=True):
            found[text].append(value)
    return found


@settings(deadline=None)
@given(texts=st.lists(TEXT, max_size=6), n=st.integers(1, 6))
def test_hashes_are_equal_exactly_where_the_tokens_are(texts: list[str], n: int) -> None:
    by_tokens: dict[tuple[str, ...], int] = {}
    for text, hashes in zip(texts, runs(texts, n), strict=True):
        words = tokens(text)
        expected = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        assert len(hashes) == len(expected)
        for words_of_run, value in zip(expected, hashes, strict=True):
            assert by_tokens.setdefault(words_of_run, value) == value
    assert len(set(by_tokens.values())) == len(by_tokens)


@settings(deadline=None)
@given(texts=st.lists(TEXT, max_size=4))
def test_a_token_begins_where_it_stands_in_its_text(texts: list[str]) -> None:
    for block in token_blocks(texts):
        for b, text in enumerate(texts):
            units = text.encode("utf-16-le")
            begins = block.begins[block.bounds[b] : block.bounds[b + 1]]
            words = tokens(text)
            for begin, word in zip(begins.tolist(), words, strict=True):
                first = units[2 * begin :].decode("utf-16-le")[0]
                assert unicodedata.normalize("NFKC", first).lower()[0] == word[0]


def test_layout_case_width_and_marks_do_not_count() -> None:
    plain = "the quick brown fox jumps over the lazy dog 42 times, 他说：“很好，我们走吧。”\n"
    disguised = (
        "  The QUICK\r\n\tbrown fox — jumps over the (lazy) dog\n４２ times 他说: 很好。我们走吧"
    )
    sets, bounds = shingle_sets([plain, disguised, plain + " indeed"])
    first, second, third = (set(sets[a:b].tolist()) for a, b in pairwise(bounds))
    assert first == second
    assert len(first) == 10 + 2 + 7 - 5 + 1
    assert len(third - first) == 1


def test_the_cut_between_words_counts() -> None:
    sets, _ = shingle_sets(["ab c d e f", "a bc d e f", "abc d e f g"])
    assert np.unique(sets).size == 3


def test_a_long_text_in_blocks_has_the_shingles_it_has_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = " ".join(f"word{n * n % 977}" for n in range(5000)) + "".join(
        map(chr, range(0x4E00, 0x6000))
    )
    whole = set(runs([text, "a b c d e f"], 5)[0])
    monkeypatch.setattr(shingles, "BLOCK_UNITS", 4096)
    blocks = list(token_blocks(["before it", text, "after it"]))
    assert len(blocks) > 10
    assert [block.first for block in blocks] == [0, *[1] * (len(blocks) - 2), 2]
    assert set(runs(["before it", text, "after it"], 5)[1]) == whole


def test_lone_surrogates_and_empty_texts_are_survived() -> None:
    sets, bounds = shingle_sets(["\ud800 a b c d e", "", "\udfff", "x"])
    assert bounds.tolist() == [0, 2, 2, 2, 2]
    assert sets.size == 2
