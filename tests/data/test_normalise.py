from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.core.errors import RecipeError
from isoflop.data.clean_recipe import SpellingConfig
from isoflop.data.normalise import Normaliser, normalise

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


@given(
    ANY_TEXT,
    st.builds(
        SpellingConfig,
        form=st.sampled_from(["nfc", "nfkc"]),
        invisible=st.booleans(),
        width=st.booleans(),
        punctuation=st.booleans(),
        boilerplate=st.booleans(),
    ),
)
def test_every_switch_leaves_valid_text_in_the_canonical_spelling(
    text: str, config: SpellingConfig
) -> None:
    spelled = Normaliser(config)(text)
    assert normalise(spelled) == spelled


@given(ANY_TEXT)
def test_without_switches_the_spelling_is_the_canonical_one(text: str) -> None:
    assert Normaliser(SpellingConfig())(text) == normalise(text)


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        (SpellingConfig(form="nfkc"), "ﬁne ① ２", "fine 1 2"),
        (SpellingConfig(invisible=True), "so\u00adft\u200b \u202eA\u200d中\u200c文", "soft A中文"),
        (SpellingConfig(invisible=True), "👩‍👧 می‌خواهم", "👩‍👧 می‌خواهم"),
        (SpellingConfig(width=True), "Ａ１２％　ｶﾞ，（。", "A12% ガ，（。"),
        (
            SpellingConfig(punctuation=True),
            "他说:好,我们走(明天).版本1.5,见file.txt. 中文!3:45",
            "他说：好，我们走（明天）。版本1.5,见file.txt. 中文！3:45",
        ),
        (SpellingConfig(punctuation=True), "Hello, world (yes).", "Hello, world (yes)."),
        (SpellingConfig(boilerplate=True), "Menu\nText.\n版权所有", "Text."),
    ],
)
def test_switches_do_what_they_say(config: SpellingConfig, text: str, expected: str) -> None:
    assert Normaliser(config)(text) == expected + "\n"


@pytest.mark.parametrize(
    ("config", "module", "package"),
    [
        (SpellingConfig(mojibake=True), "ftfy", "ftfy"),
        (SpellingConfig(chinese="simplified"), "opencc", "opencc"),
    ],
)
def test_a_switch_whose_package_is_absent_says_what_to_install(
    config: SpellingConfig, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecipeError, match=rf"needs the package {module}.*pip install {package}"):
        Normaliser(config)


def test_mojibake_is_repaired_and_nothing_else_touched() -> None:
    pytest.importorskip("ftfy")
    repair = Normaliser(SpellingConfig(mojibake=True))
    assert repair("cafÃ© â€” “schÃ¶n” &amp;") == "café — “schön” &amp;\n"
    assert repair("中文 “quotes” ﬁ Ａ") == "中文 “quotes” ﬁ Ａ\n"


def test_chinese_scripts_convert_both_ways() -> None:
    pytest.importorskip("opencc")
    assert Normaliser(SpellingConfig(chinese="simplified"))("漢字轉換") == "汉字转换\n"
    assert Normaliser(SpellingConfig(chinese="traditional"))("汉字转换") == "漢字轉換\n"
