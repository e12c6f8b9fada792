from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from isoflop.core.errors import DataError
from isoflop.models.ngram_counts import Level, count


def spelled_out(levels: tuple[Level, ...], n: int) -> list[tuple[int, ...]]:
    """The n-grams of a level as tuples of tokens."""
    level = levels[n - 1]
    last = level.keys % level.n_tokens
    if n == 1:
        return [(int(token),) for token in last]
    below = spelled_out(levels, n - 1)
    return [(*below[c], int(t)) for c, t in zip(level.contexts, last, strict=True)]


def test_every_n_gram_is_counted_as_often_as_it_occurs_within_a_document() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 4, size).tolist() for size in (1, 0, 40, 2, 25)]
    ids = [token for document in documents for token in document]
    starts = np.cumsum([0, *map(len, documents)])
    levels = count(ids, starts, 4, 4)
    for n in range(1, 5):
        expected: Counter[tuple[int, ...]] = Counter()
        for document in documents:
            padded = [4, *document]
            expected.update(tuple(padded[i : i + n]) for i in range(len(padded) - n + 1))
        level = levels[n - 1]
        grams = spelled_out(levels, n)
        assert {g: c for g, c in zip(grams, level.counts.tolist(), strict=True) if c} == expected
        assert [gram[0] == 4 for gram in grams] == level.first.tolist()
        if n > 1:
            shorter = spelled_out(levels, n - 1)
            assert [shorter[s] for s in level.suffixes] == [gram[1:] for gram in grams]
            assert (np.diff(level.keys) > 0).all()


@pytest.mark.parametrize(
    ("ids", "starts", "said"),
    [
        ([], [0, 0], "no token"),
        ([0, 5], [0, 2], "between 0 and 5"),
        ([-1, 2], [0, 2], "between -1 and 2"),
        ([0, 1], [0, 1], "ascend from 0 to 2"),
        ([0, 1, 2], [0, 2, 1, 3], "ascend"),
    ],
)
def test_ids_and_starts_that_make_no_sense_are_refused(
    ids: list[int], starts: list[int], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        count(ids, starts, 5, 2)
