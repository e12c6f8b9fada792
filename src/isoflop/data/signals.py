"""Measures the text of one document for the quality rules: some thirty numbers a document.

Not for judging them (`quality`). The definitions are those of Gopher (Rae et al. 2021, A.1.1), C4
(Raffel et al. 2020, 2.2) and FineWeb (Penedo et al. 2024, 3.5) as datatrove computes them; the
words and the ends of sentences are our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.data.repetition import repetition
from isoflop.data.words import ChineseCharacters, EnglishWords, Tokens

TOP = ("most_frequent_short_gram", "most_frequent_middle_gram", "most_frequent_long_gram")
DUPLICATE = tuple(f"repeated_gram_{step}" for step in range(1, 7))
SIGNALS = (
    "words", "mean_word_length", "hashes_per_word", "ellipses_per_word", "bullet_lines",
    "ellipsis_lines", "alphabetic_words", "stop_words",
    "repeated_paragraphs", "repeated_paragraph_characters", "repeated_lines",
    "repeated_line_characters", *TOP, *DUPLICATE,
    "sentences", "lorem_ipsum_lines", "curly_bracket_lines", "sentence_lines",
    "ended_lines", "short_lines", "repeated_full_line_characters", "newlines_per_word",
)  # fmt: skip
"""Names of the signals, in the order in which they are stored."""


@dataclass(frozen=True)
class Script:
    """How one family of languages is measured."""

    top: tuple[int, ...]
    """Lengths in tokens of the n-grams whose most frequent one counts, one for each of `TOP`."""
    duplicate: tuple[int, ...]
    """Lengths in tokens of the repeated n-grams, one for each of `DUPLICATE`."""
    gap: int
    """Characters between two tokens."""
    line_ends: tuple[str, ...]
    """What a line must end with to be a sentence (C4)."""
    min_line_words: int
    """Words a line must have to be a sentence (C4)."""
    notices: tuple[str, ...]
    """Phrases, in lower case, of notices about cookies and terms: such lines do not count (C4)."""
    sentence_break: re.Pattern[str]
    """Matches once for every sentence of a line after the first."""
    short_line: int
    """Characters up to which a line is short (FineWeb)."""


_ABBREVIATIONS = "".join(
    rf"(?<!\b{word}\.)"
    for word in (
        "Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Gen", "Gov", "Sen", "Rep", "Rev", "Jr", "Sr",
        "Co", "Corp", "Inc", "Ltd", "Bros", "vs", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul",
        "Aug", "Sep", "Sept", "Oct", "Nov", "Dec", "Mt", "Messrs", "Adm", "Va", "Fla", "Wash",
    )
)  # fmt: skip

ENGLISH = Script(
    top=(2, 3, 4),
    duplicate=(5, 6, 7, 8, 9, 10),
    gap=1,
    line_ends=(".", "?", "!", '"', "'"),
    min_line_words=3,
    notices=(
        "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
        "use cookies",
    ),
    # A stop ends a sentence after a lower-case letter, a digit, a mark or two capitals (J. and
    # U.S. do not); then comes a space and, after marks, a word. The mark stands first in the
    # pattern, and what must precede it behind it: so the search runs from mark to mark.
    sentence_break=re.compile(
        r"[.!?。！？](?:(?<!\.)|(?:(?<=[^\sA-Z.]\.)(?<!\.[a-z]\.)|(?<=[A-Z][A-Z]\.))"
        + _ABBREVIATIONS
        + r")(?:[^\w\s]*[^\S\n]+[^\w\n]*(?=\w)|(?<=[a-z]\.)(?=[A-Z]))"
    ),
    short_line=30,
)  # fmt: skip

# A Chinese word is about 1.7 characters long, so n-grams of 2 … 10 words are of 3 … 17 characters.
CHINESE = Script(
    top=(3, 5, 7),
    duplicate=(8, 10, 12, 14, 15, 17),
    gap=0,
    line_ends=(*"。！？；…”’」』", ".", "?", "!", '"'),
    min_line_words=5,
    notices=("使用条款", "使用條款", "隐私政策", "隱私政策", "隱私權政策", "版权所有", "版權所有"),
    sentence_break=re.compile(r"[。！？!?]+[”’」』）)\"]*[^\S\n]*(?=[^\s”’」』）)\"])"),
    short_line=12,
)

ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# The single-character words of FineWeb-2's list for Chinese (cmn_Hani), in both scripts.
CHINESE_STOP_CHARACTERS = "的年在月是和日了於于為为有被人中他與与後后也而由"

# What ends a line for FineWeb: full stops, question and exclamation marks of many scripts.
_TERMINAL = frozenset(".?!。！？．｡﹒﹖﹗‼‽⁇⁈⁉।॥؟۔؞؝܀܁܂።፧፨։᙮᠃᠉᥄᥅⸮⸼⸓⸔។៕៚၊။꓿꘎꘏꛳꛷꡶꡷꣎꣏꧈꧉꩝꩞꩟꫰꫱꯫")
_PARAGRAPHS = re.compile(r"\n{2,}")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_MAX_WORD = 1000


class Measurer:
    """Measures documents; remembers words between them, so make one and use it for all."""

    def __init__(self) -> None:
        self._english = EnglishWords(ENGLISH_STOP_WORDS)
        self._chinese = ChineseCharacters(CHINESE_STOP_CHARACTERS)

    def english(self, text: str) -> dict[str, float]:
        """The signals of a text whose words stand between spaces."""
        return _measure(text, self._english.tokens(text), ENGLISH)

    def chinese(self, text: str) -> dict[str, float]:
        """The signals of a Chinese text; its words are characters."""
        return _measure(text, self._chinese.tokens(text), CHINESE)


def _measure(text: str, tokens: Tokens, script: Script) -> dict[str, float]:
    n_words, n_characters = tokens.ids.size, max(len(text), 1)
    proper = tokens.lengths[~tokens.symbols]
    paragraphs = _PARAGRAPHS.split(text.strip())
    repeated_paragraphs, paragraph_characters = _repeats(paragraphs)
    all_lines = text.split("\n")
    lines = [line for line in all_lines if line]
    # An empty first or last line counts as a line of its own, as it does for datatrove.
    edges = 0 if not lines else (not all_lines[0]) + (not all_lines[-1])
    repeated_lines, line_characters = _repeats(lines)
    if edges == 2:
        repeated_lines += 1
    full = [line for line in lines if not line.isspace()]
    n_full = max(len(full), 1)
    full_characters = line_characters if len(full) == len(lines) else _repeats(full)[1]
    repeats = repetition(tokens.ids, tokens.lengths, script.top, script.duplicate, script.gap)
    bullets, ellipsis_lines, n_split = _line_marks(text)
    sentences, lorem, curly, kept = _sentences(text, script)
    per_word = 1.0 / max(n_words, 1)
    values = [
        float(proper.size),
        float(proper.mean()) if proper.size else 0.0,
        text.count("#") * per_word,
        (text.count("...") + text.count("…")) * per_word,
        bullets / n_split,
        ellipsis_lines / n_split,
        int(tokens.alphabetic.sum()) * per_word,
        float(tokens.stop_words),
        repeated_paragraphs / len(paragraphs),
        paragraph_characters / n_characters,
        repeated_lines / max(len(lines) + edges, 1),
        line_characters / n_characters,
        *(repeats.top[n] / n_characters for n in script.top),
        *(repeats.duplicate[n] / n_characters for n in script.duplicate),
        float(sentences),
        float(lorem),
        float(curly),
        float(kept),
        sum(line[-1] in _TERMINAL for line in full) / n_full,
        sum(len(line) <= script.short_line for line in full) / n_full,
        full_characters / max(len(text) - len(all_lines) + 1, 1),
        (len(all_lines) - 1) * per_word,
    ]
    return dict(zip(SIGNALS, values, strict=True))


def _repeats(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts were seen before among the parts, and their characters."""
    unique = set(parts)
    if len(unique) == len(parts):
        return 0, 0
    return len(parts) - len(unique), sum(map(len, parts)) - sum(map(len, unique))


def _line_marks(text: str) -> tuple[int, int, int]:
    """Lines that start with a bullet, lines that end with an ellipsis, and all lines (≥ 1)."""
    lines = text.splitlines()
    bullets = ellipses = 0
    if "-" in text or "•" in text:
        bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    if "..." in text or "…" in text:
        ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    return bullets, ellipses, max(len(lines), 1)


def _sentences(text: str, script: Script) -> tuple[int, int, int, int]:
    """Sentences in the lines C4 keeps, kept lines with "lorem ipsum", with "{", kept lines."""
    kept, lorem, curly = _c4_lines(text, script)
    breaks = len(script.sentence_break.findall("\n".join(kept)))
    return len(kept) + breaks, lorem, curly, len(kept)


def _c4_lines(text: str, script: Script) -> tuple[list[str], int, int]:
    lower = text.lower()
    notices = [phrase for phrase in ("javascript", *script.notices) if phrase in lower]
    has_lorem, has_curly = "lorem ipsum" in lower, "{" in text
    spaced, ends = script.gap > 0, script.line_ends
    kept: list[str] = []
    lorem = curly = 0
    for raw in text.splitlines():
        line = raw.strip()
        if "[" in line:
            words = line.split(None, script.min_line_words)
            line = _CITATION.sub("", line)
        else:
            words = None
        if not line.endswith(ends) or line.endswith("..."):
            continue
        if spaced:
            if len(line) > _MAX_WORD and any(len(word) > _MAX_WORD for word in raw.split()):
                continue
            words = words or line.split(None, script.min_line_words)
            if len(words) < script.min_line_words:
                continue
        elif len(line) < script.min_line_words:
            continue
        if has_lorem and "lorem ipsum" in line.lower():
            lorem += 1
        if notices and any(phrase in line.lower() for phrase in notices):
            continue
        if has_curly and "{" in line:
            curly += 1
        kept.append(line)
    return kept, lorem, curly
