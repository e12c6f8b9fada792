"""Repeated passages against every window compared as a string."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data import substrings
from isoflop.data.substrings import (
    fingerprints,
    merged,
    repeated_passages,
    without_spans,
)


def expected_spans(texts: list[str], rank: list[int], length: int) -> dict[int, list[bool]]:
    """By document, which characters lie in a window seen before, in order of rank."""
    first: dict[str, tuple[int, int]] = {}
    marked: dict[int, list[bool]] = {}
    for document in sorted(range(len(texts)), key=lambda i: rank[i]):
        text = texts[document]
        marks = [False] * len(text)
        for begin in range(len(text) - length + 1):
            window = text[begin : begin + length]
            where, at = first.setdefault(window, (document, begin))
            if where != document or begin >= at + length:
                marks[begin : begin + length] = [True] * length
        if any(marks):
            marked[document] = marks
    return marked


def found_spans(
    texts: list[str], rank: list[int], length: int, batch_bytes: int = 10**8
) -> dict[int, list[bool]]:
    def read() -> Iterator[tuple[int, str]]:
        yield from enumerate(texts)

    spans = repeated_passages(read, np.array(rank), length, batch_bytes)
    marked: dict[int, list[bool]] = {}
    for number, pairs in spans.items():
        marked[number] = [False] * len(texts[number])
        for begin, end in pairs.tolist():
            assert not any(marked[number][begin:end])
            marked[number][begin:end] = [True] * (end - begin)
    return marked


@settings(deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("abç中👍"), max_size=60), max_size=5),
    length=st.integers(4, 15),
    seed=st.integers(0, 5),
)
def test_exactly_the_windows_seen_before_are_found(
    texts: list[str], length: int, seed: int
) -> None:
    rank = np.random.default_rng(seed).permutation(len(texts)).tolist()
    assert found_spans(texts, rank, length) == expected_spans(texts, rank, length)


@pytest.fixture(scope="module")
def copied() -> list[str]:
    """Texts of random letters into which passages of 45 to 160 characters are copied."""
    draw = random.Random(4)
    texts = ["".join(draw.choices("abcdefghij \n一二三", k=draw.randrange(400))) for _ in range(30)]
    for _ in range(40):
        source = draw.choice(texts)
        begin = draw.randrange(len(source) + 1)
        passage = source[begin : begin + draw.randrange(45, 160)]
        target = draw.randrange(30)
        at = draw.randrange(len(texts[target]) + 1)
        texts[target] = texts[target][:at] + passage + texts[target][at:]
    return texts


@pytest.mark.parametrize("length", [50, 51, 80])
def test_copied_passages_are_found_whatever_the_parts_and_rounds(
    copied: list[str], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = np.random.default_rng(2).permutation(30).tolist()
    expected = expected_spans(copied, rank, length)
    assert len(expected) > 5
    assert found_spans(copied, rank, length) == expected
    monkeypatch.setattr(substrings, "_PART_CHARACTERS", 128)
    assert found_spans(copied, rank, length, batch_bytes=4_000) == expected


def test_fingerprints_are_few() -> None:
    draw = random.Random(1)
    text = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=100_000))
    hashes, places = fingerprints(text, 200)
    assert np.all(np.diff(places) > 0)
    assert 100_000 / 60 < hashes.size < 100_000 / 40


@settings(deadline=None)
@given(spans=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8))
def test_merged_spans_cover_the_same_and_lie_apart(spans: list[tuple[int, int]]) -> None:
    given_spans = np.array([(a, a + n) for a, n in spans], np.int64).reshape(-1, 2)
    found = merged(given_spans)
    covered = {c for a, b in given_spans.tolist() for c in range(a, b)}
    assert {c for a, b in found.tolist() for c in range(a, b)} == covered
    assert np.all(found[1:, 0] > found[:-1, 1])
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 40)))
    left = [char for at, char in enumerate(text) if at not in covered]
    assert without_spans(text, found) == "".join(left)
