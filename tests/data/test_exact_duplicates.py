"""Equal keys and seen lines against plain dictionaries and sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data.exact_duplicates import (
    canonical_url,
    line_keys,
    same_key,
    same_lines,
    text_keys,
    url_keys,
)


def lines(start: int, stop: int) -> str:
    return "\n".join(f"this is the telling line number {n}" for n in range(start, stop)) + "\n"


def kept_by(texts: list[str], rank: list[int] | None = None) -> list[int]:
    ranks = np.arange(len(texts)) if rank is None else np.array(rank)
    return same_lines(*line_keys(texts), ranks).tolist()


@settings(deadline=None)
@given(texts=st.lists(st.sampled_from(["a", "b", "c", "d", ""])), seed=st.integers(0, 9))
def test_of_equal_texts_the_one_of_least_rank_stays(texts: list[str], seed: int) -> None:
    rank = np.random.default_rng(seed).permutation(len(texts))
    expected = [
        min((j for j, other in enumerate(texts) if other == text), key=lambda j: rank[j])
        for text in texts
    ]
    assert same_key(text_keys(texts), rank).tolist() == expected


@pytest.mark.parametrize(
    "other",
    [
        "http://example.org/a/b?x=1&y=2",
        "https://www.example.org:443/a/b/?y=2&x=1#part",
        "HTTPS://Example.ORG/a/b?utm_source=feed&x=1&y=2&fbclid=abc",
    ],
)
def test_spellings_of_one_address_are_one(other: str) -> None:
    assert canonical_url(other) == canonical_url("https://example.org/a/b?x=1&y=2")


@pytest.mark.parametrize(
    "other",
    ["https://example.org/A", "https://example.org:8080/a", "https://example.org/a?p=2", ""],
)
def test_other_pages_keep_addresses_of_their_own(other: str) -> None:
    keys = url_keys(["https://example.org/a", other, "http://[broken", "http://[broken"])
    assert keys[0] != keys[1]
    assert keys[2] == keys[3] != 0
    assert (keys[1] == 0) == (other == "")


def test_more_than_half_of_the_lines_seen_drops_and_half_does_not() -> None:
    assert kept_by([lines(0, 10), lines(4, 14)]) == [0, 0]  # 6 of 10 seen
    assert kept_by([lines(0, 10), lines(5, 15)]) == [0, 1]  # 5 of 10 seen


def test_indentation_and_short_lines_do_not_hide_a_copy() -> None:
    disguised = "\n".join(f"    {line}\n    pass" for line in lines(0, 10).splitlines())
    assert kept_by([lines(0, 10), disguised]) == [0, 0]


def test_a_dropped_document_leaves_no_lines_behind() -> None:
    # Lines 10 to 12 stand in the second document alone, which is not kept.
    assert kept_by([lines(0, 10), lines(3, 13), lines(10, 20)]) == [0, 0, 2]


def test_lines_of_several_documents_add_up_and_the_fullest_stands_for_them() -> None:
    assert kept_by([lines(0, 10), lines(10, 20), lines(7, 16)]) == [0, 1, 1]


def test_the_rank_decides_and_not_the_order() -> None:
    texts = [lines(4, 14), lines(0, 10), lines(10, 20)]
    assert kept_by(texts, [1, 0, 2]) == [1, 1, 2]
    assert kept_by(texts, [0, 2, 1]) == [0, 0, 2]


def test_short_documents_of_shared_phrases_are_not_matched_by_lines() -> None:
    texts = [
        f"Question: how much is {number} and one?\nAnswer: it is the next number.\n"
        for number in range(20)
    ]
    assert kept_by(texts) == list(range(20))


@settings(deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(0, 25), min_size=5, max_size=12), max_size=12),
    seed=st.integers(0, 9),
)
def test_seen_lines_are_those_of_a_walk_in_order_of_rank(parts: list[list[int]], seed: int) -> None:
    rank = np.random.default_rng(seed).permutation(len(parts))
    texts = ["\n".join(f"telling line {n:04}" for n in part) for part in parts]
    seen: set[int] = set()
    kept: dict[int, bool] = {}
    for document in np.argsort(rank).tolist():
        distinct = set(parts[document])
        telling = len(distinct) >= 5
        kept[document] = not (telling and len(distinct & seen) > len(distinct) / 2)
        if kept[document] and telling:
            seen |= distinct
    found = kept_by(texts, rank.tolist())
    assert [found[i] == i for i in range(len(parts))] == [kept[i] for i in range(len(parts))]
    assert all(kept[best] for best in found)
