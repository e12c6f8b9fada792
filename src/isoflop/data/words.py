"""Cuts text into words (spaced scripts) or characters (Chinese) as numbers; not for training text.

The words are close to those of spaCy's rule tokenizer, on whose words the published thresholds
were set, at a fraction of its cost: one regular expression, then integers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# As in spaCy's rules, marks are cut off the ends of what stands between spaces, and what is left
# is cut inside only at a hyphen or comma between letters, at `:<>=/` before a letter, at a stop
# between sentences, at an ellipsis, and before a clitic ('s, 't, 're …).
_ENGLISH_TOKEN = re.compile(
    r"""
    (?: (?=[-/\\|@^~.]) (?<!\w) (?!\.\.|-+\s) [-/\\|@^~.]+ )?
    [^\W_]+
    (?: (?=[^\w\s]|_)
        (?! [:<>=/][^\W\d_] | \.\. | … | ['’](?:[stmd]|re|ve|ll)\b | (?<=[a-zß-ÿ])\.[A-Z]
          | (?<=[^\W\d_])(?:,|-{1,3}|–|—{1,2}|~)[^\W\d_] | (?<=\d)[-+*^][\d-] )
        (?: [^\w\s]+_* | _+ ) [^\W_]+
    )*
    (?: (?=[-/\\|@^~.]) (?: \.(?<=\b[A-Z]\.) | [-/\\|@^~]+(?!\w) ) )?
  | ['’](?:[stmd]|re|ve|ll)\b
  | \.\.+ | -+ | [|/\\^~]+
  | [^\w\s] | _
    """,
    re.VERBOSE,
)
# Marks that make no word by themselves; letters, digits and signs such as ® or • do.
_PUNCTUATION = frozenset(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»‼‽⁇⁈⁉؟۔।॥"
)

# Words kept between documents; beyond it the table starts again, so that memory stays bounded.
_MAX_VOCABULARY = 1 << 18


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text as parallel arrays of length T."""

    ids: NDArray[np.int64]
    """(T,) equal numbers for equal tokens."""
    lengths: NDArray[np.int64]
    """(T,) characters in each token."""
    symbols: NDArray[np.bool_]
    """(T,) whether the token is punctuation alone."""
    alphabetic: NDArray[np.bool_]
    """(T,) whether the token holds a letter (an ideograph is one)."""
    stop_words: int
    """How many different stop words occur."""


class EnglishWords:
    """Cuts text of spaced scripts into words, remembering the words it has seen."""

    def __init__(self, stop_words: tuple[str, ...]) -> None:
        self._stop_words = stop_words
        self._forget()

    def _forget(self) -> None:
        self._vocabulary = _Vocabulary()
        for word in self._stop_words:
            self._vocabulary[word]

    def tokens(self, text: str) -> Tokens:
        """The words of `text`, in order."""
        if len(self._vocabulary) > _MAX_VOCABULARY:
            self._forget()
        words = _ENGLISH_TOKEN.findall(text)
        ids = np.fromiter(map(self._vocabulary.__getitem__, words), np.int64, len(words))
        properties = self._vocabulary.properties()[ids]
        n_stop = len(self._stop_words)
        return Tokens(
            ids=ids,
            lengths=properties >> 2,
            symbols=(properties & 2) != 0,
            alphabetic=(properties & 1) != 0,
            stop_words=np.unique(ids[ids < n_stop]).size,
        )


class _Vocabulary(dict[str, int]):
    """Word → number; an unknown word gets the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._new: list[int] = []
        self._properties = np.empty(0, np.int64)

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        # Length, then a bit for "punctuation alone" and one for "holds a letter".
        symbol = _PUNCTUATION.issuperset(word)
        alphabetic = word.isalpha() or any(c.isalpha() for c in word)
        self._new.append(len(word) << 2 | symbol << 1 | alphabetic)
        return number

    def properties(self) -> NDArray[np.int64]:
        """(V,) packed properties by word number."""
        if self._new:
            if len(self) > self._properties.size:
                grown = np.empty(2 * len(self), np.int64)
                filled = len(self) - len(self._new)
                grown[:filled] = self._properties[:filled]
                self._properties = grown
            self._properties[len(self) - len(self._new) : len(self)] = self._new
            self._new = []
        return self._properties


_SPACE, _SYMBOL, _RUN_DIGIT, _RUN_LETTER, _IDEOGRAPH = range(5)
# Above the last code point: numbers of Latin words and figures.
_FIRST_RUN_ID = 0x110000


class ChineseCharacters:
    """Cuts Chinese text into ideographs and marks, and whole words and figures of other scripts."""

    def __init__(self, stop_characters: str) -> None:
        self._stops = np.array(sorted(map(ord, stop_characters)), np.int64)
        self._runs: dict[str, int] = {}

    def tokens(self, text: str) -> Tokens:
        """One token per ideograph, kana, hangul syllable or mark; other words and figures whole."""
        if len(self._runs) > _MAX_VOCABULARY:
            self._runs = {}
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(
            np.int64
        )
        table = _classes()
        classes = table[np.minimum(points, table.size - 1)]
        astral = points >= table.size
        if astral.any():
            classes[astral] = np.where(points[astral] < 0x20000, _SYMBOL, _IDEOGRAPH)
        run = (classes == _RUN_LETTER) | (classes == _RUN_DIGIT)
        starts = classes != _SPACE
        starts[1:] &= ~(run[1:] & run[:-1])
        first = np.flatnonzero(starts)
        ids = points[first].copy()
        lengths = np.ones(first.size, np.int64)
        alphabetic = classes[first] >= _RUN_LETTER
        if run.any():
            edges = np.flatnonzero(np.diff(run, prepend=False, append=False))
            which = np.searchsorted(first, edges[::2])
            lengths[which] = edges[1::2] - edges[::2]
            letters = np.concatenate([[0], np.cumsum(classes == _RUN_LETTER)])
            alphabetic[which] = letters[edges[1::2]] > letters[edges[::2]]
            runs = self._runs
            ids[which] = [
                runs.setdefault(text[a:b], _FIRST_RUN_ID + len(runs))
                for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
            ]
        return Tokens(
            ids=ids,
            lengths=lengths,
            symbols=classes[first] == _SYMBOL,
            alphabetic=alphabetic,
            stop_words=int(np.isin(self._stops, ids).sum()),
        )


@cache
def _classes() -> NDArray[np.uint8]:
    """(65536,) the class of every character of the basic plane."""
    classes = np.full(0x10000, _SYMBOL, np.uint8)
    for point in range(0x10000):
        char = chr(point)
        if char.isspace() or point < 0x20:
            classes[point] = _SPACE
        elif char.isalpha():
            unspaced = 0x2E80 <= point < 0xD7B0 or 0xF900 <= point < 0xFB00
            classes[point] = _IDEOGRAPH if unspaced else _RUN_LETTER
        elif char.isalnum():
            classes[point] = _RUN_DIGIT
    return classes


def word_starts(data: bytes) -> NDArray[np.bool_]:
    """(len(data),) whether a word begins at each byte of UTF-8 text.

    A word is a run of letters or of digits with letters, a single ideograph (kana, hangul), or any
    other mark or space. Bytes that are no whole character are words of their own.
    """
    # A byte that is no part of a character comes as a lone surrogate: one character, one byte.
    text = data.decode("utf-8", "surrogateescape")
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    table = _classes()
    classes = table[np.minimum(points, table.size - 1)]
    astral = points >= table.size
    classes[astral] = np.where(points[astral] < 0x20000, _SYMBOL, _IDEOGRAPH)
    run = (classes == _RUN_LETTER) | (classes == _RUN_DIGIT)
    first = np.ones(points.size, np.bool_)
    first[1:] = ~(run[1:] & run[:-1])
    escaped = (points >= 0xD800) & (points < 0xE000)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    sizes[escaped] = 1
    starts = np.zeros(len(data), np.bool_)
    starts[(np.cumsum(sizes) - sizes)[first]] = True
    return starts
