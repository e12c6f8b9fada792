"""Questions about a table: each oddity is found and named, and a sound table raises none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import RunTable, fit, read_table
from isoflop.laws.quality import questions

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"


def truth(params: Any, tokens: Any) -> Any:
    return 1.8 + 480.0 / np.asarray(params) ** 0.35 + 2100.0 / np.asarray(tokens) ** 0.37


def sound(**more: Any) -> RunTable:
    params, tokens = (a.ravel() for a in np.meshgrid([1e7, 4e7, 2e8], [1e9, 4e9, 2e10]))
    given = {"run_id": [f"r{i}" for i in range(9)]} | more
    return RunTable.from_arrays(params, tokens, given.pop("loss", truth(params, tokens)), **given)


def kinds(table: RunTable) -> list[str]:
    return [question.kind for question in questions(table)]


def test_a_sound_table_raises_no_question() -> None:
    assert sound().notes == ()


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"warmup_tokens": [5e8] + [1e7] * 8}, "warm-up", "1 of 9 runs (r0)"),
        ({"unique_tokens": [1e9] * 9}, "repeated", "up to 20 times"),
        ({"steps": [1e3] * 9, "batch_tokens": [1e5] * 9}, "steps", "9 of 9 runs"),
        ({"family": ["moe"] * 2 + ["dense"] * 7}, "mixed", "dense 7, moe 2"),
        ({"schedule": ["cosine"] * 4 + ["wsd"] * 5}, "mixed", "2 schedules"),
        ({"params_total": [1e7] * 9}, "embeddings", "6 of 9 runs"),
        ({"params_total": [5e8] * 9}, "embeddings", "more than half"),
        ({"flops": [6e20] * 9}, "flops", "check the units"),
        ({"run_id": ["a"] * 9}, "checkpoints", "share their run_id"),
    ],
)
def test_an_oddity_is_found_counted_and_named(more: dict[str, Any], kind: str, said: str) -> None:
    table = sound(**more)
    assert kind in kinds(table)
    assert said in " ".join(table.notes)


def test_a_run_entered_twice_is_named_and_seeds_are_not_duplicates() -> None:
    params, tokens, loss = [1e7, 1e7, 2e7], [1e9, 1e9, 1e9], [4.0, 4.0, 3.5]
    twice = RunTable.from_arrays(params, tokens, loss, run_id=["a", "b", "c"])
    assert [(q.kind, q.rows) for q in questions(twice)] == [("duplicate", (1,))]
    seeds = RunTable.from_arrays(params, tokens, [4.0, 4.001, 3.5], seed=[0, 1, 0])
    assert questions(seeds) == ()


def test_a_run_above_a_smaller_one_with_less_data_is_called_diverged() -> None:
    loss = truth(*(a.ravel() for a in np.meshgrid([1e7, 4e7, 2e8], [1e9, 4e9, 2e10])))
    loss[8] = 1.1 * loss[0]
    (question,) = questions(sound(loss=loss))
    assert (question.kind, question.rows) == ("diverged", (8,))


def test_a_run_with_fewer_tokens_than_parameters_is_called_undertrained() -> None:
    table = RunTable.from_arrays([1e9, 1e9], [5e8, 2e9], [4.0, 3.5], run_id=["a", "b"])
    assert [(q.kind, q.rows) for q in questions(table)] == [("undertrained", (0,))]


def test_perplexities_below_the_limit_of_losses_are_questioned() -> None:
    params, tokens = (a.ravel() for a in np.meshgrid([1e9, 4e9, 2e10], [1e11, 4e11, 2e12]))
    table = RunTable.from_arrays(params, tokens, np.exp(truth(params, tokens)))
    assert table.loss.max() < 12.5
    assert "would not be as perplexities" in table.notes[0]


def test_bits_are_questioned_in_every_form_they_come_in() -> None:
    loss = sound().loss
    assert "per byte" in sound(loss=0.25 * loss).notes[0]
    assert "bits_per_byte" in sound(loss=0.4 * loss, bits_per_byte=0.4 * loss).notes[0]
    as_bits = sound(loss=loss / np.log(2.0), bits_per_byte=loss / np.log(2.0) / 4.3)
    assert "bits per token" in as_bits.notes[0]
    assert sound(bits_per_byte=loss / np.log(2.0) / 4.3).notes == ()


def test_questions_reach_the_law_as_warnings() -> None:
    law = fit(sound(warmup_tokens=[9e8] * 9), bootstrap=100)
    assert any("in warm-up" in warning for warning in law.warnings)


def test_losses_below_the_fitted_floor_never_give_a_confident_number() -> None:
    params, tokens = (a.ravel() for a in np.meshgrid([1e7, 4e7, 2e8], [1e9, 4e9, 2e10]))
    loss = truth(params, tokens)
    loss[[0, 3]] = 1.2
    law = fit(RunTable.from_arrays(params, tokens, loss), bootstrap=100)
    assert law.warnings
    assert not law.supported


@pytest.mark.parametrize(
    ("params", "tokens", "said"),
    [
        ([1e7, 2e7, 4e7], [1e9, 2e9, 4e9], "cannot determine the 5 parameters"),
        ([1e7] * 6, [1e9, 2e9, 4e9, 8e9, 2e10, 4e10], "same size"),
        ([1e7, 2e7, 4e7, 8e7, 2e8, 4e8], [-1e9] * 6, "tokens is -1e"),
    ],
)
def test_a_table_that_determines_nothing_is_refused(
    params: list[float], tokens: list[float], said: str
) -> None:
    with pytest.raises(TableError, match=said):
        fit(RunTable.from_arrays(params, tokens, [3.0] * len(params)))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared tables are not here")
def test_public_tables_get_the_questions_that_their_makers_answer() -> None:
    names = {"params": "N", "tokens": "D"}
    repeated = read_table(SHARED / "muennighoff_data_constrained.csv", names)
    assert {"repeated", "diverged"} <= set(kinds(repeated))  # overfitted large models on 100M
    gadre = read_table(SHARED / "gadre_overtrain.csv", names | {"family": "dataset"})
    assert "3 families" in " ".join(gadre.notes)
