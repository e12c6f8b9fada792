from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data.normalise import normalise

# Every code point, lone surrogates included, with the troublesome ones drawn more often.
ANY_TEXT = st.text(
    st.one_of(
        st.characters(), st.characters(categories=["Cs"]), st.sampled_from("\r\n\t e\0\u0301")
    )
)


@given(ANY_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(ANY_TEXT)
def test_what_comes_out_is_nfc_and_valid_utf8_without_control_characters(text: str) -> None:
    clean = normalise(text)
    assert clean.encode("utf-8").decode("utf-8") == clean
    assert unicodedata.is_normalized("NFC", clean)
    assert not [c for c in clean if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n"]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1))
def test_visible_ascii_stays_as_it_is(text: str) -> None:
    assert normalise(text) == text + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc", "a\nb\nc\n"),
        ("\ufeffa", "a\n"),
        ("cafe\u0301", "café\n"),
        ("e\x00\u0301", "é\n"),
        ("\n\n    indented\n  less\n\n", "    indented\n  less\n"),
        ("a\x0cb\ud800c", "abc\n"),
        (" \n\t\u3000\n", ""),
        ("", ""),
    ],
)
def test_known_spellings(text: str, expected: str) -> None:
    assert normalise(text) == expected
