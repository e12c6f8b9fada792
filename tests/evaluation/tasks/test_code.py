"""The functions to be written, and how written ones are judged."""

from __future__ import annotations

import pytest

from isoflop.core.sandbox import run_programs
from isoflop.evaluation.generation import Written
from isoflop.evaluation.task import Settings
from isoflop.evaluation.tasks import code as module
from isoflop.evaluation.tasks.code import LIMITS, code, problems


def test_there_are_functions_in_both_languages_and_no_prompt_shows_an_answer():
    names = [problem.name for problem in problems()]
    assert len(set(names)) == len(names) >= 30
    assert {problem.language for problem in problems()} == {"en", "zh"}
    for problem in problems():
        assert problem.prompt.rstrip().endswith('"""')
        assert problem.body.strip() not in problem.prompt
        assert "assert" not in problem.prompt


def test_the_bodies_pass_their_tests_and_an_empty_one_fails_them():
    right = [problem.program(problem.body) for problem in problems()]
    empty = [problem.program("    return None") for problem in problems()]
    found = run_programs([*right, *empty], LIMITS)
    assert [one.error for one in found[: len(right)]] == [""] * len(right)
    assert not any(one.ok for one in found[len(right) :])


def test_a_models_functions_are_run_and_counted(subject_of, monkeypatch: pytest.MonkeyPatch):
    """A model that knows the first function, and writes an endless loop for the second."""
    known, unknown = problems()[:2]

    def writes(subject, prompts, stop, most, sampling=None, samples=1):
        bodies = {known.prompt: known.body, unknown.prompt: "    while True: pass"}
        texts = [[bodies[p]] + ["    return 1 / 0"] * (samples - 1) for p in prompts]
        return [[Written(t, 5, "stop", False) for t in each] for each in texts]

    monkeypatch.setattr(module, "generate_until", writes)
    outcome = code(subject_of(), Settings(limit=2))
    assert [record.score for record in outcome.records] == [1.0, 0.0]
    assert [record.detail["status"] for record in outcome.records] == ["ok", "timeout"]
    # One of eight samples of one of two functions is right: pass@1 is 1/16, pass@8 1/2.
    found = outcome.extra["pass_at_k"]
    assert found["1"] == pytest.approx(1 / 16)
    assert found["8"] == pytest.approx(1 / 2)
    assert "limits" in outcome.extra["contained_by"]


def test_a_model_of_random_weights_passes_nothing(subject_of):
    outcome = code(subject_of(), Settings(limit=2))
    assert [record.score for record in outcome.records] == [0.0, 0.0]
