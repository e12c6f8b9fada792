"""The quality rules: named thresholds on signals, and which rule a document fails first.

Not for measuring (`signals`). English thresholds are those of the papers; Chinese ones are
FineWeb-2's (cmn_Hani), which count words, re-based to characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.data.signals import DUPLICATE, TOP

Side = Literal["min", "max"]
FAMILIES = ("gopher-repetition", "gopher-quality", "c4", "fineweb")


@dataclass(frozen=True, slots=True)
class Rule:
    """One threshold on one signal; what lies beyond it is dropped."""

    name: str
    """`family.what`, the reason under which the funnel counts it."""
    signal: str
    side: Side
    """Whether the threshold is the least or the greatest value allowed."""
    threshold: float

    def fails(self, value: float) -> bool:
        """Whether a document with this value of the signal is dropped."""
        return value < self.threshold if self.side == "min" else value > self.threshold

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]


def _rules(family: str, *rows: tuple[str, str, Side, float]) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"{family}.{what}", signal, side, threshold) for what, signal, side, threshold in rows
    )


def _repetition(
    tops: tuple[float, ...], duplicates: tuple[float, ...], lines: float
) -> tuple[tuple[str, str, Side, float], ...]:
    return (
        ("repeated-lines", "repeated_lines", "max", lines),
        *(
            (signal.replace("_", "-"), signal, "max", share)
            for signal, share in zip((*TOP, *DUPLICATE), (*tops, *duplicates), strict=True)
        ),
    )


_C4: tuple[tuple[str, str, Side, float], ...] = (
    ("lorem-ipsum", "lorem_ipsum_lines", "max", 0),
    ("curly-brackets", "curly_bracket_lines", "max", 0),
    ("sentences", "sentences", "min", 5),
)

ENGLISH_RULES = (
    *_rules(
        "gopher-repetition",
        ("repeated-paragraphs", "repeated_paragraphs", "max", 0.3),
        ("repeated-paragraph-characters", "repeated_paragraph_characters", "max", 0.2),
        ("repeated-line-characters", "repeated_line_characters", "max", 0.2),
        *_repetition((0.2, 0.18, 0.16), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), lines=0.3),
    ),
    *_rules(
        "gopher-quality",
        ("few-words", "words", "min", 50),
        ("many-words", "words", "max", 100_000),
        ("short-words", "mean_word_length", "min", 3),
        ("long-words", "mean_word_length", "max", 10),
        ("hashes", "hashes_per_word", "max", 0.1),
        ("ellipses", "ellipses_per_word", "max", 0.1),
        ("bullet-lines", "bullet_lines", "max", 0.9),
        ("ellipsis-lines", "ellipsis_lines", "max", 0.3),
        ("alphabetic-words", "alphabetic_words", "min", 0.8),
        ("stop-words", "stop_words", "min", 2),
    ),
    *_rules(
        "c4",
        *_C4,
    ),
    *_rules(
        "fineweb",
        ("unended-lines", "ended_lines", "min", 0.12),
        ("short-lines", "short_lines", "max", 0.67),
        ("repeated-full-lines", "repeated_full_line_characters", "max", 0.01),
        ("newlines", "newlines_per_word", "max", 0.3),
    ),
)
"""Rae et al. 2021 (table A1), Raffel et al. 2020, Penedo et al. 2024, in datatrove's order."""

# A word of FineWeb-2's segmenter (jieba) is about 1.7 characters, and marks and foreign words are
# one token in both, so that a word stands for some 1.4 of our tokens.
_CHARACTERS_PER_WORD = 1.7
_TOKENS_PER_WORD = 1.4


def _without_spaces(n: int, share: float) -> float:
    """The share of the text that its most frequent n words cover once the spaces that datatrove
    puts between them are left out: Chinese has none."""
    characters = n * _CHARACTERS_PER_WORD
    return round(share * characters / (characters + n - 1), 3)


def _alphabetic(share: float) -> float:
    """A share of words with letters as a share of our tokens."""
    letters = share * _CHARACTERS_PER_WORD
    return round(letters / (letters + 1.0 - share), 3)


CHINESE_RULES = (
    *_rules(
        "gopher-repetition",
        *_repetition(
            (_without_spaces(2, 0.256), _without_spaces(3, 0.201), _without_spaces(4, 0.171)),
            (0.198, 0.182, 0.167, 0.154, 0.14, 0.127),
            lines=0.287,
        ),
    ),
    *_rules(
        "gopher-quality",
        ("few-words", "words", "min", 50 * _CHARACTERS_PER_WORD),
        ("many-words", "words", "max", 100_000 * _CHARACTERS_PER_WORD),
        ("long-words", "mean_word_length", "max", 5 / _CHARACTERS_PER_WORD),
        ("hashes", "hashes_per_word", "max", 0.1 / _TOKENS_PER_WORD),
        ("ellipses", "ellipses_per_word", "max", 0.1 / _TOKENS_PER_WORD),
        ("bullet-lines", "bullet_lines", "max", 0.9),
        ("ellipsis-lines", "ellipsis_lines", "max", 0.3),
        ("alphabetic-words", "alphabetic_words", "min", _alphabetic(0.735)),
        ("stop-words", "stop_words", "min", 2),
    ),
    *_rules(
        "c4",
        *_C4,
    ),
    *_rules(
        "fineweb",
        ("unended-lines", "ended_lines", "min", 0.106),
        ("repeated-full-lines", "repeated_full_line_characters", "max", 0.1),
        ("newlines", "newlines_per_word", "max", 0.178 / _TOKENS_PER_WORD),
    ),
)
"""FineWeb-2's thresholds for cmn_Hani (Penedo et al. 2025) on characters; it leaves C4 out."""


def chosen_rules(
    rules: tuple[Rule, ...], families: tuple[str, ...], thresholds: Mapping[str, float]
) -> tuple[Rule, ...]:
    """The rules of some families, with other thresholds for some of them.

    Raises:
        RecipeError: A threshold names no rule.
    """
    known = {rule.name for rule in (*ENGLISH_RULES, *CHINESE_RULES)}
    unknown = sorted(set(thresholds) - known)
    if unknown:
        raise RecipeError(
            f"`thresholds` names no quality rule: {', '.join(unknown)}",
            fix=f"There are {', '.join(sorted(known))}",
        )
    return tuple(
        replace(rule, threshold=float(thresholds.get(rule.name, rule.threshold)))
        for rule in rules
        if rule.family in families
    )


def first_failed(rules: tuple[Rule, ...], signals: Mapping[str, float]) -> str | None:
    """The name of the first rule that these signals fail; None when all hold."""
    for rule in rules:
        if rule.fails(signals[rule.signal]):
            return rule.name
    return None
