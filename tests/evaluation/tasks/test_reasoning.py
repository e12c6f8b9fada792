"""Answers found in texts, and a score that a model which knows the answers would get."""

from __future__ import annotations

import pytest

from isoflop.data.word_problems import word_problem
from isoflop.evaluation.generation import Written
from isoflop.evaluation.task import Settings
from isoflop.evaluation.tasks import reasoning


def test_the_answer_is_what_the_text_calls_so():
    assert reasoning.found_answer(" 12 + 7 = 19. The answer is 19.") == "19"
    assert reasoning.found_answer("5 × 3 = 15。答案是15。") == "15"
    assert reasoning.found_answer(" 12 + 7 = 19.") is None


def test_golds_are_the_problems_own_answers_and_every_figure_follows_from_the_texts(
    subject, monkeypatch
):
    truth = {}
    for i in range(8):
        text, _ = word_problem(reasoning._AWAY, i)
        cut = max(text.find("\nAnswer:") + 8, text.find("\n答案：") + 4)
        truth[text[:cut]] = text[cut:].rstrip("\n")
    calls = []

    def knows(subject, prompts, stop, most, sampling=None, samples=1):
        # Right step by step, wrong directly; of the samples, three of eight are right.
        calls.append(prompts)
        texts = []
        for prompt in prompts:
            right = truth.get(prompt)
            wrong = " 0. The answer is -1."
            if samples == 1:
                texts.append([right if right is not None else " -1."])
            else:
                texts.append([right] * 3 + [wrong] * 2 + ["nothing"] * 3)
        return [[Written(one, 1, "stop", False) for one in each] for each in texts]

    monkeypatch.setattr(reasoning, "generate_until", knows)
    outcome = reasoning.word_problems(subject, Settings(limit=4))
    counted = [record.score for record in outcome.records if record.counts]
    assert counted == [1.0] * 8
    assert outcome.extra["direct"] == 0
    assert outcome.extra["pass_at_k"]["1"] == pytest.approx(3 / 8)
    assert outcome.extra["majority_at_k"] == {
        "1": pytest.approx(3 / 8), "2": pytest.approx(15 / 28),
        "4": pytest.approx(13 / 20), "8": 1.0,
    }  # fmt: skip
