"""How much a text shares with references: BLEU, chrF, ROUGE, each as its reference tool counts it.

Not for meaning: two texts that say the same in other words share little. Chinese is counted by
characters.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from isoflop.core.errors import DataError

Words = Literal["13a", "zh"]
MAX_ORDER = 4
CHRF_ORDER = 6
CHRF_BETA = 2
_CHINESE = re.compile(
    "([\u2e80-\u2fdf\u3000-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef])"
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_SEPARATED = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""Punctuation apart from words, full stops and commas between digits left: mteval-v13a."""


def bleu_words(text: str, words: Words) -> list[str]:
    """The words BLEU counts: mteval-v13a's, or with each Chinese character a word of its own."""
    if words == "zh":
        line = _CHINESE.sub(r" \1 ", text.strip())
    else:
        line = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
        if "&" in line:
            for entity, character in _ENTITIES:
                line = line.replace(entity, character)
    line = f" {line} "
    for pattern, apart in _SEPARATED:
        line = pattern.sub(apart, line)
    return line.split()


def bleu(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], words: Words = "13a"
) -> float:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002), as sacrebleu's default: 4-grams, the closest
    reference length, exponential smoothing of orders without a match (Post 2018).

    Args:
        references: Of each hypothesis, one or more.

    Raises:
        DataError: There are no hypotheses, or one has no reference.
    """
    _check(hypotheses, references)
    matched, found = [0] * MAX_ORDER, [0] * MAX_ORDER
    length = wanted = 0
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        ours = bleu_words(hypothesis, words)
        theirs = [bleu_words(text, words) for text in texts]
        length += len(ours)
        wanted += min((abs(len(t) - len(ours)), len(t)) for t in theirs)[1]
        for order in range(1, MAX_ORDER + 1):
            mine = _ngrams(ours, order)
            most: Counter[tuple[str, ...]] = Counter()
            for text in theirs:
                most |= _ngrams(text, order)
            matched[order - 1] += (mine & most).total()
            found[order - 1] += mine.total()
    if not any(matched):
        return 0.0
    logs, halved = 0.0, 1
    for right, total in zip(matched, found, strict=True):
        if total == 0:
            return 0.0
        if right == 0:
            halved *= 2
        logs += math.log(right / total if right else 1 / (halved * total))
    brevity = 1.0 if length >= wanted else math.exp(1 - wanted / length)
    return 100 * brevity * math.exp(logs / MAX_ORDER)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF2, 0 to 100 (Popović 2015), as sacrebleu's default: characters without spaces,
    orders 1 to 6, recall counting β² = 4 times, the best reference of each text.

    Raises:
        DataError: There are no hypotheses, or one has no reference.
    """
    _check(hypotheses, references)
    totals = [[0, 0, 0] for _ in range(CHRF_ORDER)]
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        best = max((_chrf_counts(hypothesis, text) for text in texts), key=_chrf_score)
        for total, counts in zip(totals, best, strict=True):
            for i, count in enumerate(counts):
                total[i] += count
    return 100 * _chrf_score(totals)


def rouge(hypothesis: str, reference: str, kind: Literal["1", "2", "L"]) -> float:
    """ROUGE-1, -2 or -L as F1, 0 to 1 (Lin 2004), as rouge-score without stemming: lower-case
    words of letters a–z and digits; each Chinese character is a word."""
    ours, theirs = _rouge_words(hypothesis), _rouge_words(reference)
    if kind == "L":
        shared, mine, wanted = _common_subsequence(ours, theirs), len(ours), len(theirs)
    else:
        a, b = _ngrams(ours, int(kind)), _ngrams(theirs, int(kind))
        shared, mine, wanted = (a & b).total(), a.total(), b.total()
    return 2 * shared / (mine + wanted) if shared else 0.0


# --- counting ------------------------------------------------------------------------------


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def _chrf_counts(hypothesis: str, reference: str) -> list[list[int]]:
    """[n-grams of the hypothesis, of the reference, shared] of each order."""
    ours, theirs = ("".join(text.split()) for text in (hypothesis, reference))
    counts = []
    for order in range(1, CHRF_ORDER + 1):
        a, b = _ngrams(ours, order), _ngrams(theirs, order)
        # An order the reference lacks says nothing of the hypothesis.
        counts.append([a.total() if b else 0, b.total(), (a & b).total()])
    return counts


def _chrf_score(counts: Sequence[Sequence[int]]) -> float:
    used = [(shared / ours, shared / theirs) for ours, theirs, shared in counts if ours and theirs]
    if not used:
        return 0.0
    precision = sum(each for each, _ in used) / len(used)
    recall = sum(each for _, each in used) / len(used)
    weighed = CHRF_BETA**2 * precision + recall
    return (1 + CHRF_BETA**2) * precision * recall / weighed if weighed else 0.0


def _rouge_words(text: str) -> list[str]:
    separated = _CHINESE.sub(r" \1 ", text.lower())
    return re.findall(r"[a-z0-9]+|[\u3400-\u4dbf\u4e00-\u9fff]", separated)


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for one in a:
        corner = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = corner + 1 if one == other else max(above, row[j - 1])
            corner = above
    return row[-1]


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise DataError("each text needs at least one reference, and there must be a text")
