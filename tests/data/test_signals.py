from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.data.signals import ENGLISH, SIGNALS, Measurer

MEASURER = Measurer()
PIECES = st.lists(
    st.sampled_from(
        [
            "the cat sat. ", "Run!", "\n", "\n\n", "- item", "…", "...", "#", " ", "x{y}.", "\t",
            "lorem ipsum ok.", "Javascript is on here.", "we use cookies here.", "[1] of it.",
            "word word word.", "• b",
        ]
    ),
    max_size=25,
)  # fmt: skip


def duplicates(parts: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters


@given(PIECES)
def test_line_signals_equal_their_definitions_read_literally(pieces: list[str]) -> None:
    """Gopher, C4 and FineWeb as datatrove 0.10 words them, one line after another."""
    text = "".join(pieces)
    if not text.strip():
        return
    found = MEASURER.english(text)
    n = len(text)
    paragraphs = re.split(r"\n{2,}", text.strip())
    count, characters = duplicates(paragraphs)
    assert found["repeated_paragraphs"] == count / len(paragraphs)
    assert found["repeated_paragraph_characters"] == characters / n
    lines = re.split(r"\n+", text)
    count, characters = duplicates(lines)
    assert found["repeated_lines"] == count / len(lines)
    assert found["repeated_line_characters"] == characters / n
    split = text.splitlines()
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in split)
    dots = sum(line.rstrip().endswith(("...", "…")) for line in split)
    assert (found["bullet_lines"], found["ellipsis_lines"]) == (
        bullets / len(split),
        dots / len(split),
    )
    full = [line for line in text.split("\n") if line.strip()]
    assert found["ended_lines"] == sum(line.endswith((".", "!", "?")) for line in full) / len(full)
    assert found["short_lines"] == sum(len(line) <= 30 for line in full) / len(full)
    assert found["repeated_full_line_characters"] == duplicates(full)[1] / len(
        text.replace("\n", "")
    )
    lorem, curly, kept = c4_by_hand(text)
    assert (found["lorem_ipsum_lines"] > 0) == lorem
    assert (found["curly_bracket_lines"] > 0) == curly
    assert found["sentence_lines"] == kept


def c4_by_hand(text: str) -> tuple[bool, bool, int]:
    lorem = curly = False
    kept = 0
    for raw in text.splitlines():
        line = raw.strip()
        words = line.split()
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line)
        if not line.endswith((".", "?", "!", '"', "'")) or line.endswith("..."):
            continue
        if len(words) < 3:
            continue
        low = line.lower()
        lorem |= "lorem ipsum" in low
        if "javascript" in low or any(phrase in low for phrase in ENGLISH.notices):
            continue
        curly |= "{" in line
        kept += 1
    return lorem, curly, kept


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("One sentence only here.", 1),
        ("It rained. We stayed in! Did you? Yes.", 4),
        ("Mr. Smith met J. R. Jones of the U.S. army, e.g. in St. Louis.", 1),
        ('He said "no." Then he left (at 5 p.m.) for good.', 2),
        ("It grew by 3.5 to 4.2 in 2019. Nobody knew why.", 2),
        ("The end.Next comes this one.", 2),
    ],
)
def test_sentences_end_where_a_reader_ends_them(line: str, sentences: int) -> None:
    assert MEASURER.english(line)["sentences"] == sentences


def test_chinese_sentences_lines_and_stop_characters_are_counted() -> None:
    found = MEASURER.chinese("他说：“下雨了。”我们在家里。你呢？\n再见了，我的朋友！")
    assert found["sentences"] == 4
    assert found["ended_lines"] == 1.0
    assert found["stop_words"] == 4  # 他, 了, 在, 的
    assert found["words"] == 19


def test_every_text_has_every_signal_as_a_finite_number() -> None:
    for text in ("", " ", "\n\n", "x", "。", "#", "a" * 5000, "…\n…"):
        for found in (MEASURER.english(text), MEASURER.chinese(text)):
            assert tuple(found) == SIGNALS
            assert all(abs(value) < 1e9 for value in found.values())
