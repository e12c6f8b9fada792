"""BLEU, chrF and ROUGE against sacrebleu and rouge-score where installed, and by hand."""

from __future__ import annotations

import math

import pytest

from isoflop.core.errors import DataError
from isoflop.evaluation.overlap import bleu, bleu_words, chrf, rouge

HYPOTHESES = [
    "The cat sat on the mat, and it cost $3.50 (well-known).",
    "Tom has 12 apples & gives away 3 of them.",
    "It is a guide to action which ensures that the military always obeys.",
    "no match here",
    "the the the the",
]
REFERENCES = [
    ["The cat is on the mat; it cost $3.50 (well-known).", "A cat sat on a mat."],
    ["Tom had 12 apples &amp; gave 3 of them away.", "Tom has 12 apples and gives 3 away."],
    [
        "It is a guide to action that ensures that the military will forever heed.",
        "It is the guiding principle.",
    ],
    ["completely different words", "other ones"],
    ["the cat", "a the b"],
]
CHINESE = (
    ["小明有三个苹果，又买了2.5元的糖。", "今天天气很好"],
    [["小明有3个苹果，又买了糖。"], ["今天的天气很好！"]],
)


def test_bleu_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    turned = [list(each) for each in zip(*REFERENCES, strict=True)]
    assert bleu(HYPOTHESES, REFERENCES) == pytest.approx(
        sacrebleu.corpus_bleu(HYPOTHESES, turned).score
    )
    for hypothesis, texts in zip(HYPOTHESES, REFERENCES, strict=True):
        theirs = sacrebleu.corpus_bleu([hypothesis], [[text] for text in texts]).score
        assert bleu([hypothesis], [texts]) == pytest.approx(theirs)
    theirs = sacrebleu.corpus_bleu(CHINESE[0], [[t for (t,) in CHINESE[1]]], tokenize="zh").score
    assert bleu(*CHINESE, "zh") == pytest.approx(theirs)


def test_chrf_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    turned = [list(each) for each in zip(*REFERENCES, strict=True)]
    assert chrf(HYPOTHESES, REFERENCES) == pytest.approx(
        sacrebleu.corpus_chrf(HYPOTHESES, turned).score
    )
    for hypothesis, texts in zip(HYPOTHESES, REFERENCES, strict=True):
        theirs = sacrebleu.corpus_chrf([hypothesis], [[text] for text in texts]).score
        assert chrf([hypothesis], [texts]) == pytest.approx(theirs)
    theirs = sacrebleu.corpus_chrf(CHINESE[0], [[t for (t,) in CHINESE[1]]]).score
    assert chrf(*CHINESE) == pytest.approx(theirs)


def test_rouge_is_that_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for hypothesis, texts in zip(HYPOTHESES, REFERENCES, strict=True):
        wanted = theirs.score(texts[0], hypothesis)
        for kind in ("1", "2", "L"):
            assert rouge(hypothesis, texts[0], kind) == pytest.approx(
                wanted[f"rouge{kind}"].fmeasure
            )


def test_bleu_by_hand():
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, no four: smoothed to 1/(2 · 3); equal lengths.
    score = bleu(["the cat sat on the mat"], [["the cat is on the mat"]])
    assert score == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)
    # Two words fewer than the reference: every order matches, the brevity penalty remains.
    short = bleu(["a b c d"], [["a b c d e f"]])
    assert short == pytest.approx(100 * math.exp(1 - 6 / 4))
    assert bleu(["x y z w"], [["a b c d"]]) == 0


def test_words_are_parted_as_mteval_does():
    assert bleu_words("It cost $3.50 (well-known), 1990-1999.", "13a") == [
        "It", "cost", "$", "3.50", "(", "well-known", ")", ",", "1990", "-", "1999", ".",
    ]  # fmt: skip
    assert bleu_words("买了2.5元", "zh") == ["买", "了", "2.5", "元"]


def test_chrf_and_rouge_by_hand():
    # Characters abc and abd: 2 of 3, pairs 1 of 2, triples 0 of 1; precision equals recall.
    assert chrf(["abc"], [["abd"]]) == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert rouge("the cat sat", "the cat lay there", "1") == pytest.approx(2 * 2 / 7)
    assert rouge("the cat sat", "the cat lay there", "2") == pytest.approx(2 * 1 / 5)
    assert rouge("a x b y c", "a b c", "L") == pytest.approx(2 * 3 / 8)
    assert rouge("今天很好", "今天好", "L") == pytest.approx(2 * 3 / 7)
    assert rouge("", "x", "1") == 0


def test_a_text_without_reference_is_refused():
    with pytest.raises(DataError, match="at least one reference"):
        bleu(["a"], [[]])
