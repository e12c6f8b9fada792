from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data.words import ChineseCharacters, EnglishWords

ENGLISH, CHINESE = EnglishWords(("the", "of")), ChineseCharacters("的在")


def lengths(text: str) -> list[int]:
    found: list[int] = ENGLISH.tokens(text).lengths.tolist()
    return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # As spaCy 3.8's blank English tokenizer cuts them.
        ("The quick, brown fox.", ["The", "quick", ",", "brown", "fox", "."]),
        ("a well-known (yes) 3.14", ["a", "well", "-", "known", "(", "yes", ")", "3.14"]),
        ("It's 1,000 at 10:30...", ["It", "'s", "1,000", "at", "10:30", "..."]),
        ("U.S. and J. foo_bar covid-19", ["U.S.", "and", "J.", "foo_bar", "covid-19"]),
        ("End.Next a/b x=y", ["End", ".", "Next", "a", "/", "b", "x", "=", "y"]),
        ("$5 @user AT&T std::vec foo(x)", ["$", "5", "@user", "AT&T", "std::vec", "foo(x", ")"]),
        ('he said "no" — twice', ["he", "said", '"', "no", '"', "—", "twice"]),
        ("", []),
    ],
)
def test_english_is_cut_where_spacy_cuts_it(text: str, words: list[str]) -> None:
    assert lengths(text) == [len(word) for word in words]


def test_equal_words_have_equal_numbers_across_documents() -> None:
    a, b = ENGLISH.tokens("one two one").ids, ENGLISH.tokens("two three").ids
    assert a[0] == a[2] != a[1] == b[0] != b[1]


def test_stop_words_letters_and_marks_are_told_apart() -> None:
    tokens = ENGLISH.tokens("the edge of 42 , the end •")
    assert tokens.stop_words == 2
    assert tokens.symbols.tolist() == [False] * 4 + [True] + [False] * 3
    assert tokens.alphabetic.tolist() == [True, True, True, False, False, True, True, False]


def test_chinese_is_cut_into_characters_and_whole_foreign_words() -> None:
    tokens = CHINESE.tokens("我的GPT4在2024年，好。\n")
    assert tokens.lengths.tolist() == [1, 1, 4, 1, 4, 1, 1, 1, 1]
    assert tokens.symbols.tolist() == [False] * 6 + [True, False, True]
    assert tokens.alphabetic.tolist() == [True, True, True, True, False, True, False, True, False]
    assert tokens.stop_words == 2


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_tokens_cover_everything_but_space(text: str) -> None:
    visible = sum(not c.isspace() and c >= " " for c in text)
    assert CHINESE.tokens(text).lengths.sum() == visible
    if all(c.isprintable() for c in text):
        assert ENGLISH.tokens(text).lengths.sum() == sum(not c.isspace() for c in text)
