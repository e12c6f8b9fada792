"""Names the language of a text, offline, from its scripts, characters and spelling.

Not a classifier of hundreds of languages: English, Chinese in either script, Japanese, Korean,
code, eleven more languages in Latin letters; for anything else the script (`und-Cyrl`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from isoflop.data.latin_words import COMMON_WORDS

UNKNOWN = "und"

_SAMPLES, _SAMPLE_CHARACTERS = 3, 800
_BUCKETS = 1 << 13
# Below these a text says too little; its script is still named.
_MIN_LETTERS, _MIN_LATIN_SCORE = 4, 0.5
# Tables of figures hold letters too, but few.
_MIN_LETTER_SHARE = 0.2
_MIN_CODE_LINES = 0.35
# Kana needed among kana and ideographs: Chinese quotes a の now and then.
_MIN_KANA = 0.05

_SCRIPTS = re.compile(
    r"(?P<Kana>[\u3041-\u30fa\u30fd-\u30ff\uff66-\uff9d]+)|(?P<Han>[\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U000323af]+)|(?P<Hang>[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]+)"
    r"|(?P<Latn>[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]+)|(?P<Cyrl>[\u0400-\u052f]+)"
    r"|(?P<Grek>[\u0370-\u03ff]+)|(?P<Arab>[\u0600-\u06ff\u0750-\u077f]+)"
    r"|(?P<Hebr>[\u0590-\u05ff]+)|(?P<Deva>[\u0900-\u097f]+)|(?P<Thai>[\u0e00-\u0e7f]+)"
    r"|(?P<Zyyy>[^\W\d_])"
)
_LATIN_WORD = re.compile(r"[a-z\u00aa\u00ba\u00df-\u024f\u1e00-\u1eff]+(?:['’][a-zà-ÿ]+)*")

# What lines of programs look like, and prose does not.
_CODE_LINE = re.compile(
    r"^\s*(?:"
    r"(?:[\w.*&<>\[\]:,\s]+\s)?[\w.\[\]\"'*]+\s*(?::\s*[\w\[\], |.]+)?\s*[-+*/|&:]?=(?!=)\s*\S.*"
    r"|(?:async\s+)?(?:def|class|func|fn|function|struct|enum|interface|impl|trait)\s+\w+.*[({:;]?\s*"
    r"|(?:from\s+[\w.]+\s+)?import\s+[\w.*{ ]+.*"
    r"|#\s*(?:include|define|if|ifdef|ifndef|endif|pragma)\b.*"
    r"|(?:if|elif|else|for|while|try|except|finally|with|switch|case)\b.*[:{]\s*"
    r"|(?:return|raise|yield|assert|break|continue|pass|let|const|var|use|using|package|namespace"
    r"|public|private|static|void|int|print|echo|export|SELECT|INSERT|UPDATE|CREATE)\b.*[;(){}\w\]'\"]"
    r"|[\w.]+\(.*\)?[;:,{]?|.*[;{}]|[)\]}]+[;,)]*|//.*|/\*.*|\*/|@\w[\w.]*(?:\(.*\))?"
    r"|<[/!?a-zA-Z][^>]*>.*|[\"']?[\w.-]+[\"']?\s*:\s*[\[{\"'\d].*,?|.*\\"
    r")\s*$"
)
_PROSE_LINE = re.compile(r"^\s*(?:[A-ZÀ-Þ]?[a-zß-ÿ’',-]+\s+){5,}")


@dataclass(frozen=True)
class Language:
    """A guess at the language of a text."""

    tag: str
    """`en`, `zh-Hans`, `zh-Hant`, `ja`, `ko`, `code`, `de` …, `und-Cyrl`, or `und`."""
    score: float
    """Between 0 and 1: the share of the text, or the probability, that speaks for it."""


def identify(text: str) -> Language:
    """The language of a text, from three samples of it (2,400 characters at most).

    Scripts decide first: kana among ideographs is Japanese, ideographs are Chinese, and of those
    the characters that only one of the two standards GB 2312 and Big5 holds tell the script.
    Latin letters go to a naive Bayes over hashed n-grams of 1 to 4 characters.
    """
    sample = _sample(text)
    code = _code_share(sample)
    if code >= _MIN_CODE_LINES:
        return Language("code", min(1.0, code))
    letters: Counter[str] = Counter()
    for match in _SCRIPTS.finditer(sample):
        letters[str(match.lastgroup)] += match.end() - match.start()
    # One ideograph or syllable says as much as three letters of an alphabet.
    weights = {
        script: count * (3 if script in ("Han", "Kana", "Hang") else 1)
        for script, count in letters.items()
    }
    if letters.total() < max(_MIN_LETTERS, _MIN_LETTER_SHARE * len("".join(sample.split()))):
        return Language(UNKNOWN, 0.0)
    eastern = weights.get("Han", 0) + weights.get("Kana", 0)
    script = max(weights, key=lambda name: weights[name])
    total = sum(weights.values())
    if script in ("Han", "Kana"):
        return Language(_han_tag(sample, letters), eastern / total)
    if script == "Hang":
        return Language("ko", weights["Hang"] / total)
    share = weights[script] / total
    if script != "Latn":
        return Language(UNKNOWN if script == "Zyyy" else f"und-{script}", share)
    tag, probability = _latin(sample)
    if probability < _MIN_LATIN_SCORE:
        return Language("und-Latn", share * (1.0 - probability))
    return Language(tag, share * probability)


def _sample(text: str) -> str:
    """The text, or three pieces of it: start, middle and end."""
    if len(text) <= _SAMPLES * _SAMPLE_CHARACTERS:
        return text
    last = len(text) - _SAMPLE_CHARACTERS
    starts = (0, last // 2, last)
    return "\n".join(text[start : start + _SAMPLE_CHARACTERS] for start in starts)


def _code_share(sample: str) -> float:
    """Share of the characters that stand in lines which look like a program."""
    code = total = 0
    for line in sample.split("\n"):
        size = len(line.strip())
        if size:
            total += size
            if size <= 200 and _CODE_LINE.match(line) and not _PROSE_LINE.match(line):
                code += size
    return code / total if total else 0.0


def _han_tag(sample: str, letters: Counter[str]) -> str:
    if letters["Kana"] >= _MIN_KANA * (letters["Kana"] + letters["Han"]):
        return "ja"
    simplified = traditional = japanese = 0
    for char in sample:
        kind = _han_kind(char)
        simplified += kind == "s"
        traditional += kind == "t"
        japanese += kind == "j"
    # Chinese knows none of the forms that Japan alone simplified; Japanese text mixes them in.
    if japanese > 0.1 * (simplified + traditional):
        return "ja"
    # Text of shared characters alone is far more often simplified.
    return "zh-Hant" if traditional > simplified else "zh-Hans"


@lru_cache(maxsize=1 << 15)
def _han_kind(char: str) -> str:
    """Which standard alone knows an ideograph: s GB 2312, t Big5, j JIS X 0208; else empty."""
    if not "\u3400" <= char <= "\u9fff":
        return ""
    simplified, traditional = _encodes(char, "gb2312"), _encodes(char, "big5")
    if simplified != traditional:
        return "s" if simplified else "t"
    return "j" if not simplified and _encodes(char, "shift_jis") else ""


def _encodes(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _latin(sample: str) -> tuple[str, float]:
    """The likeliest language in Latin letters and its posterior, tempered by the words seen."""
    words = _LATIN_WORD.findall(sample.lower().replace("’", "'"))
    if not words:
        return UNKNOWN, 0.0
    tags, _ = _model()
    scores = np.sum([_word_scores(word) for word in words], axis=0)
    # Words of a text depend on each other: count no more than 40 of them as evidence.
    scores *= min(1.0, 40.0 / len(words))
    best = int(np.argmax(scores))
    odds = np.exp(scores - scores[best])
    # A text that fits no language as words of that language do is none of them.
    fit = float(np.mean([_word_fit(word, best) for word in words]))
    return tags[best], float(1.0 / odds.sum()) * min(1.0, fit / 0.12)


@lru_cache(maxsize=1 << 15)
def _word_scores(word: str) -> NDArray[np.float64]:
    """(L,) log-probabilities of the n-grams of a word, per n-gram length, in each language."""
    _, model = _model()
    return np.asarray(model[_grams(word)].mean(axis=0) * 2.0)


def _word_fit(word: str, language: int) -> bool:
    """Whether a word is among the commonest of a language."""
    return word in _vocabularies()[language]


@cache
def _vocabularies() -> list[frozenset[str]]:
    return [frozenset(words.split()) for words in COMMON_WORDS.values()]


def _grams(word: str) -> list[int]:
    """Buckets of the n-grams (1 to 4 characters) of a word between two marks, and the word."""
    marked = f"<{word}>"
    grams = {marked[i : i + n] for n in (1, 2, 3, 4) for i in range(len(marked) - n + 1)}
    return [crc32(gram.encode()) % _BUCKETS for gram in sorted({*grams, f"={word}"})]


@cache
def _model() -> tuple[list[str], NDArray[np.float64]]:
    """Tags, and (buckets, L) log-probabilities from the common words, weighted by Zipf's law."""
    tags = list(COMMON_WORDS)
    counts = np.full((_BUCKETS, len(tags)), 0.02)
    for column, words in enumerate(COMMON_WORDS.values()):
        for rank, word in enumerate(words.split(), 1):
            # Not 1/rank: the list must also teach the spelling of words beyond it.
            counts[_grams(word), column] += (rank + 10.0) ** -0.5
    return tags, np.log(counts / counts.sum(axis=0))
