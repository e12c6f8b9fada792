"""Duplicates of every kind planted among documents, and who stays."""

from __future__ import annotations

import random

import numpy as np
import pytest

from isoflop.core.errors import RecipeError
from isoflop.data.documents import Document
from isoflop.data.duplicates import (
    KINDS,
    documents_duplicates,
    duplicate_keys,
    find_duplicates,
    joined_keys,
)
from isoflop.data.duplicates_recipe import DuplicatesConfig
from isoflop.data.substrings import without_spans

ALL = DuplicatesConfig(url=True, near=True, substrings="cut")
ORDER = {"first": 0, "second": 1}


def prose(seed: int, n_words: int = 150) -> str:
    """Lines of words that no other seed has."""
    draw = random.Random(seed)
    words = [f"s{seed}w{draw.randrange(10_000)}" for _ in range(n_words)]
    return "".join(" ".join(words[at : at + 10]) + "\n" for at in range(0, n_words, 10))


def document(text: str, name: str, source: str = "first", url: str = "") -> Document:
    return Document(name, text, source, "en", url)


def planted() -> list[Document]:
    near = prose(1).split()
    near[70:72] = ["other", "words"]
    half = "".join(prose(2).splitlines(keepends=True)[:8]) + prose(3, 70)
    passage = prose(4).replace("\n", " ")[300:700]
    return [
        document(prose(1) + "and longer", "longest of one", url="https://a.org/1"),
        document(prose(1) + "and longer", "same text", "second"),
        document("   ".join(near), "a few words changed"),
        document(prose(5), "other text, same address", url="http://www.a.org/1#top"),
        document(prose(2) + prose(6), "holds the lines"),
        document(half, "more than half of its lines"),
        document(prose(4).replace("\n", " "), "holds the passage"),
        document(prose(7, 60).replace("\n", " ") + passage + " and", "cites the passage"),
        document(prose(8), "alone"),
    ]


def by_name(documents: list[Document], config: DuplicatesConfig = ALL) -> dict[str, str]:
    """What each document that falls falls for, and for whom."""
    found = documents_duplicates(documents, config, ORDER)
    return {
        documents[n].id: f"{KINDS[found.kinds[n]]}: {documents[found.kept[n]].id}"
        for n in np.flatnonzero(found.kinds >= 0).tolist()
    }


EXPECTED = {
    "same text": "exact: longest of one",
    "other text, same address": "url: longest of one",
    "a few words changed": "near: longest of one",
    "more than half of its lines": "line: holds the lines",
}


def test_each_kind_of_duplicate_is_found_and_named() -> None:
    assert by_name(planted()) == EXPECTED


@pytest.mark.parametrize("seed", range(3))
def test_the_same_documents_fall_in_whatever_order_they_come(seed: int) -> None:
    documents = planted()
    random.Random(seed).shuffle(documents)
    assert by_name(documents) == EXPECTED


def test_a_kind_switched_off_drops_nothing() -> None:
    off = DuplicatesConfig(exact=False, lines=False)
    assert by_name(planted(), off) == {}
    assert by_name(planted(), DuplicatesConfig(lines=False)) == {
        "same text": "exact: longest of one"
    }


def test_a_cited_passage_is_cut_where_it_was_cited() -> None:
    documents = planted()
    found = documents_duplicates(documents, ALL, ORDER)
    names = {documents[n].id: n for n in range(len(documents))}
    number = names["cites the passage"]
    assert list(found.cuts) == [number]
    left = without_spans(documents[number].text, found.cuts[number])
    assert left == prose(7, 60).replace("\n", " ") + " and"


def test_a_document_that_is_mostly_a_passage_is_dropped_on_demand() -> None:
    documents = planted()
    documents.append(document("see: " + prose(8).replace("\n", "\n\n")[:450], "a part"))
    documents[8] = document(prose(8).replace("\n", "\n\n"), "alone")
    config = DuplicatesConfig(lines=False, substrings="drop")
    found = documents_duplicates(documents, config, ORDER)
    dropped = np.flatnonzero(found.kinds == KINDS.index("substring"))
    assert [documents[n].id for n in dropped] == ["more than half of its lines", "a part"]
    assert not found.cuts


def test_the_earliest_source_or_the_longest_text_stays() -> None:
    documents = [document(prose(1), "short"), document(prose(1) + "x", "long", "second")]
    assert by_name(documents) == {"short": "near: long"}
    first = DuplicatesConfig(near=True, prefer="first")
    assert by_name(documents, first) == {"long": "near: short"}


def test_who_stood_in_for_one_that_fell_is_replaced_by_who_stands_for_that() -> None:
    lines = prose(9).splitlines(keepends=True)
    documents = [
        document("".join(lines), "a"),
        document("".join(lines), "b"),
        document("\n".join(line.strip() for line in lines) + "\n" + prose(10, 250), "c"),
    ]
    found = documents_duplicates(documents, ALL, ORDER)
    assert found.kept.tolist() == [2, 2, 2]
    assert found.report(lambda n: documents[n].id) == {
        "documents": 3,
        "clusters": 1,
        "removed": 2,
        "by_kind": {"exact": 1, "url": 0, "near": 0, "line": 1, "substring": 0},
        "cut": {"documents": 0, "characters": 0},
        "largest": [{"size": 3, "kept": "c", "ids": ["a", "b"]}],
    }


def test_keys_by_batches_are_the_keys_of_all() -> None:
    documents = planted()
    whole = duplicate_keys(documents, ORDER, ALL)
    parts = [duplicate_keys(documents[a:b], ORDER, ALL) for a, b in ((0, 4), (4, 4), (4, 9))]
    joined = joined_keys(parts)
    for name, value in vars(whole).items():
        assert np.array_equal(getattr(joined, name), value), name


def test_what_an_index_knows_stands_for_nothing() -> None:
    documents = planted()
    keys = duplicate_keys(documents, ORDER, ALL)
    known = np.full(9, -1, np.int8)
    known[0] = KINDS.index("exact")
    found = find_duplicates(keys, ALL, lambda ns: (documents[n].text for n in ns), known)
    assert found.kept[:3].tolist() == [-1, 1, 1]
    assert found.kinds[3] == -1  # the same address as a document that is not kept


def test_no_documents_have_no_duplicates() -> None:
    found = documents_duplicates([], ALL)
    assert found.report(str)["removed"] == 0


def test_impossible_values_are_all_listed() -> None:
    with pytest.raises(RecipeError, match=r"similarity.*0\.3.*substring_characters.*5"):
        DuplicatesConfig(similarity=0.3, substring_characters=5)
