"""Evaluation items planted in documents, and held back from them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data import shingles
from isoflop.data.decontaminate import (
    ContaminationCount,
    cut_around,
    evaluation_index,
    find_items,
)

HANZI = [chr(point) for point in range(0x4E00, 0x5400)]


def english(draw: random.Random, n: int) -> str:
    return " ".join(f"w{draw.randrange(3000)}" for _ in range(n))


def chinese(draw: random.Random, n: int) -> str:
    return "".join(draw.choices(HANZI, k=n))


def disguised(text: str, draw: random.Random) -> str:
    """Other case, marks and line ends."""
    spaced = text.replace(" ", draw.choice([" ", "\n", ", "]))
    return draw.choice([spaced.upper(), f"“{spaced}”", spaced])


@pytest.mark.parametrize("make", [english, chinese])
@pytest.mark.parametrize("ngram", [8, 13])
def test_leaked_items_are_found_and_held_back_ones_are_not(
    make: Callable[[random.Random, int], str], ngram: int
) -> None:
    draw = random.Random(ngram)
    items = [(make(draw, draw.randrange(8, 60)),) for _ in range(200)]
    leaked = set(range(0, 200, 2))
    texts = [make(draw, 300) for _ in range(50)]
    places: dict[int, set[int]] = {}
    for item in sorted(leaked):
        at = draw.randrange(50)
        texts[at] += f"\n{disguised(items[item][0], draw)}\n{make(draw, 40)}"
        places.setdefault(at, set()).add(item)
    index = evaluation_index({"task": items}, ngram)
    found = find_items(texts, index, 0.5)
    assert set(found.items.tolist()) == leaked
    assert set(found.documents) == set(places)


def test_a_task_is_counted_by_items_and_documents() -> None:
    draw = random.Random(3)
    first = [(english(draw, 30), english(draw, 4)) for _ in range(5)]
    second = [(english(draw, 20),) for _ in range(3)] + [("too short",)]
    index = evaluation_index({"first": first, "second": second}, 13)
    count = ContaminationCount(index)
    both = f"{first[0][0]} and {second[1][0]}"
    count.add(find_items([both, english(draw, 90), first[0][0]], index, 0.5))
    count.add(find_items([first[4][0]], index, 0.5))
    assert count.as_json() == {
        "tasks": {
            "first": {"items": 5, "contaminated": 2, "undecided": 0, "documents": 3},
            "second": {"items": 4, "contaminated": 1, "undecided": 1, "documents": 1},
        },
        "dropped": 0,
    }


def test_a_template_does_not_betray_and_its_filling_does() -> None:
    draw = random.Random(5)
    template = english(draw, 40)
    items = [(f"{template} {english(draw, 12)}",) for _ in range(30)]
    index = evaluation_index({"task": items}, 13)
    assert not find_items([template + " " + english(draw, 100)], index, 0.5).items.size
    assert find_items([items[7][0]], index, 0.5).items.tolist() == [7]


def test_the_question_alone_betrays_an_item_and_a_little_of_it_does_not() -> None:
    draw = random.Random(6)
    items = [(english(draw, 40), english(draw, 200))]
    index = evaluation_index({"task": items}, 13)
    assert find_items([items[0][0]], index, 0.5).items.tolist() == [0]
    words = items[0][0].split()
    assert not find_items([" ".join(words[:20]) + " but then"], index, 0.5).items.size
    assert find_items([" ".join(words[:27])], index, 0.5).items.tolist() == [0]


def test_short_choices_are_looked_for_together_with_their_short_question() -> None:
    items = [("Which planet is red?", "Mars", "Venus of course", "Jupiter")]
    index = evaluation_index({"quiz": items}, 13)
    leaked = "Q: Which planet is red? (a) Mars (b) Venus of course (c) Jupiter"
    assert not find_items(["Which planet is red? Mars"], index, 0.5).items.size
    assert find_items([leaked.replace("(a) ", "").replace("(b) ", "").replace("(c) ", "")],
                      index, 0.5).items.tolist() == [0]  # fmt: skip


def test_matches_lie_where_the_item_stands_emoji_before_it_or_not() -> None:
    draw = random.Random(8)
    item = english(draw, 30)
    index = evaluation_index({"task": [(item,)]}, 13)
    for before in ("", "👍" * 50, chinese(draw, 99) + "👍 "):
        text = f"{before}\n{item}\n{english(draw, 50)}"
        (span,) = find_items([text], index, 0.5).spans[0].tolist()
        begin = text.index(item)
        assert span[0] == begin
        assert begin + len(item) - 5 <= span[1] <= begin + len(item)


def test_a_document_in_several_blocks_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(9)
    item = english(draw, 900)
    index = evaluation_index({"task": [(item,)]}, 13)
    text = f"{english(draw, 500)} {item} {english(draw, 500)}"
    whole = find_items(["short", text], index, 0.9)
    monkeypatch.setattr(shingles, "BLOCK_UNITS", 2048)
    parts = find_items(["short", text], index, 0.9)
    assert whole.items.tolist() == parts.items.tolist() == [0]
    assert parts.spans[1].tolist() == whole.spans[1].tolist()


def test_cutting_leaves_long_pieces_beside_the_margin() -> None:
    before, item, after = "a" * 700, "x" * 50, "b" * 390
    spans = np.array([[701, 751]])
    assert cut_around(f"{before}\n{item}\n{after}", spans) == "a" * 501
    assert cut_around(f"{before}\n{item}\n{after}{after}", spans) == "a" * 501 + "\n\n" + "b" * 581
    assert cut_around(item, np.array([[0, 50]])) == ""


def test_a_document_in_more_than_ten_pieces_goes_whole() -> None:
    text = "c" * 12_000
    ten = np.array([[at, at + 10] for at in range(1000, 10_000, 1000)])
    eleven = np.array([[at, at + 10] for at in range(1000, 11_000, 1000)])
    assert cut_around(text, ten).count("\n\n") == 9
    assert cut_around(text, eleven) == ""


def test_no_tasks_and_no_documents_find_nothing() -> None:
    text = " ".join(f"w{n}" for n in range(40))
    assert not find_items([text], evaluation_index({}, 13), 0.5).documents
    assert not find_items([], evaluation_index({"t": [("a b c d e f g h i",)]}, 13), 0.5).items.size


@settings(deadline=None)
@given(
    share=st.floats(0.05, 1.0),
    kept=st.integers(13, 60),
)
def test_an_item_counts_from_the_share_asked_for_on(share: float, kept: int) -> None:
    words = [f"v{n}" for n in range(60)]
    index = evaluation_index({"task": [(" ".join(words),)]}, 13)
    held = kept - 12  # n-grams of the first `kept` words, of 48
    found = find_items([" ".join(words[:kept])], index, share).items.size
    assert found == (held >= share * 48)
