"""Unigram and n-gram accuracy, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.training import baselines
from isoflop.training.baselines import Targets, accuracies, train_ngram


def test_accuracies_are_those_of_the_commonest_and_the_likeliest_token() -> None:
    # After 1 comes 2, after 2 comes 0 or 1, and 0 is commonest; 3 is a mark and no text.
    text = np.array([1, 2, 0, 0, 1, 2, 0, 0, 0, 1, 2, 3] * 50)
    model = train_ngram(text, [0, len(text)], 4)
    ids = np.array([0, 1, 2, 0, 1, 2])
    asked = np.array([False, False, True, True, False, True])
    found = accuracies(model, [Targets(ids, asked)], np.array([3]))
    assert found == {"unigram_accuracy": pytest.approx(1 / 3), "ngram_accuracy": 1.0}


def test_marks_are_nobodys_guess() -> None:
    text = np.array([3, 3, 3, 1] * 50)
    model = train_ngram(text, [0, len(text)], 4)
    part = Targets(np.array([3, 1]), np.array([False, True]))
    assert accuracies(model, [part], np.array([3]))["unigram_accuracy"] == 1.0


def test_the_model_is_of_whole_documents_within_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_TOKENS", 25)
    assert train_ngram(np.zeros(40, dtype=int), [0, 10, 20, 40], 2).tokens == 20
    assert train_ngram(np.zeros(40, dtype=int), [0, 40], 2).tokens == 25
    assert train_ngram(np.zeros(20, dtype=int), [0, 20], 2).tokens == 20
