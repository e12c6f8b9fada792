from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data.repetition import repetition


def top_by_hand(words: list[str], n: int) -> int:
    """Characters of the first most frequent n-gram, as Gopher's description reads."""
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count


def duplicates_by_hand(words: list[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    total = place = 0
    while place <= len(words) - n:
        gram = tuple(words[place : place + n])
        if gram in seen:
            total += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return total


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=60))
def test_all_lengths_at_once_equal_counting_one_by_one(words: list[str]) -> None:
    vocabulary = sorted(set(words))
    ids = np.array([vocabulary.index(word) for word in words], np.int64)
    lengths = np.array([len(word) for word in words], np.int64)
    found = repetition(ids, lengths, (2, 3, 4), range(5, 11), gap=1)
    assert found.top == {n: top_by_hand(words, n) for n in (2, 3, 4)}
    assert found.duplicate == {n: duplicates_by_hand(words, n) for n in range(5, 11)}


def test_large_numbers_do_not_collide() -> None:
    big = 0x110000 + (1 << 18)
    ids = np.array([0, big, big, 0, 1, big - 1], np.int64)
    found = repetition(ids, np.ones(6, np.int64), (2,), (2,), gap=0)
    assert found.duplicate == {2: 0}
    assert found.top == {2: 2}
