"""The task of DPO: each loss by hand, and parts of a batch that add up to the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isoflop.alignment.answers import Answer, answer_logprobs, answer_rows
from isoflop.alignment.dpo import (
    PairBatch,
    dpo_task,
    preference_loss,
    preference_scores,
    reference_logprobs,
)
from isoflop.alignment.dpo_recipe import DpoConfig, DpoRecipe, PairTrain, PreferenceData
from isoflop.alignment.dpo_run import with_mismatched
from isoflop.alignment.pairs import Rated
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.alignment.verify_worlds import small_decoder
from isoflop.core.errors import RecipeError

CHOSEN = [
    Answer((1, 2), (3, 9)),
    Answer((2,), (4, 4, 4, 9)),
    Answer((1,), (9,)),
    Answer((3,), (5,)),
]
REJECTED = [Answer((1, 2), (5, 5, 9)), Answer((2,), (9,)), Answer((1,), (3, 9)), Answer((3,), (0,))]
MODEL, REFERENCE = small_decoder(0, 12), small_decoder(1, 12)


def batch(smoothing: Tensor | float = 0.0) -> PairBatch:
    rows = answer_rows(CHOSEN + REJECTED)
    return PairBatch(rows, reference_logprobs(REFERENCE, rows, batch=3), smoothing)


def logprob(answer: Answer, model: torch.nn.Module) -> float:
    logits = model(torch.tensor([[*answer.prompt, *answer.ids]]))[0].log_softmax(-1)
    first = len(answer.prompt) - 1
    return sum(logits[first + i, index].item() for i, index in enumerate(answer.ids))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


LOSSES = {
    "sigmoid": lambda h, n: 0.9 * softplus(-0.3 * h) + 0.1 * softplus(0.3 * h),
    "ipo": lambda h, n: (h - 1 / 0.6) ** 2,
    "hinge": lambda h, n: max(0.0, 1 - 0.3 * h),
}


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_is_its_formula_on_whole_answers(loss: str, normalised: bool) -> None:
    smoothing = 0.1 if loss == "sigmoid" else 0.0
    config = DpoConfig(loss, beta=0.3, length_normalised=normalised)  # type: ignore[arg-type]
    total = 0.0
    for chosen, rejected in zip(CHOSEN, REJECTED, strict=True):
        sides = []
        for answer in (chosen, rejected):
            moved = logprob(answer, MODEL) - logprob(answer, REFERENCE)
            sides.append(moved / (len(answer.ids) if normalised else 1))
        total += LOSSES[loss](sides[0] - sides[1], 0)
    assert preference_loss(config, MODEL, batch(smoothing)).item() == pytest.approx(total)


def test_simpo_needs_no_reference() -> None:
    config = DpoConfig("simpo", beta=2.0, gamma=0.4)
    total = 0.0
    for chosen, rejected in zip(CHOSEN, REJECTED, strict=True):
        mean = [logprob(a, MODEL) / len(a.ids) for a in (chosen, rejected)]
        total += softplus(-(2 * (mean[0] - mean[1]) - 0.4))
    other = replace(batch(), reference=torch.randn(8, dtype=torch.float64))
    assert preference_loss(config, MODEL, other).item() == pytest.approx(total)


def test_kto_measures_drift_on_answers_behind_the_next_prompt() -> None:
    rated = [Rated(answer, good) for answer, good in zip(CHOSEN, (1, 0, 1, 0), strict=True)]
    answers = with_mismatched(rated)
    assert [a.prompt for a in answers[4:]] == [(2,), (1,), (3,), (1, 2)]
    assert [a.ids for a in answers[4:]] == [a.ids for a in CHOSEN]
    rows = answer_rows(answers)
    good = torch.tensor([True, False, True, False])
    data = PairBatch(rows, reference_logprobs(REFERENCE, rows), 0.0, good)
    moved = [logprob(a, MODEL) - logprob(a, REFERENCE) for a in answers]
    drift = max(0.0, sum(moved[4:]) / 4)
    total = sum(
        1 - 1 / (1 + math.exp(-(1 if each.desirable else -1) * 0.3 * (moved[i] - drift)))
        for i, each in enumerate(rated)
    )
    config = DpoConfig("kto", beta=0.3)
    assert preference_loss(config, MODEL, data).item() == pytest.approx(total)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    smoothing = torch.rand(4, generator=draw, dtype=torch.float64) * 0.4
    recipe = DpoRecipe(
        StartConfig(Path()), PreferenceData(Path()),
        train=PairTrain(batch_pairs=4, micro_batch_pairs=3), dpo=DpoConfig(beta=0.3),
    )  # fmt: skip
    whole = batch(smoothing)
    task = dpo_task(recipe, whole, whole)
    parts = task.batches(0)
    assert sorted(part.n_valid for part in parts) == [1, 3]
    total = sum(task.loss(MODEL, part).item() for part in parts)
    assert total == pytest.approx(preference_loss(recipe.dpo, MODEL, whole).item(), rel=1e-12)


def test_a_policy_that_is_the_reference_orders_nothing() -> None:
    recipe = DpoRecipe(StartConfig(Path()), PreferenceData(Path()))
    scores = preference_scores(recipe, REFERENCE, batch())
    assert scores["accuracy"] == 0.5
    assert scores["margin"] == pytest.approx(0.0, abs=1e-12)
    assert scores["loss"] == pytest.approx(math.log(2))
    rows = batch().rows
    whole = answer_logprobs(REFERENCE, rows).sum(-1)
    torch.testing.assert_close(whole, batch().reference)


def test_impossible_recipes_list_all_their_problems() -> None:
    with pytest.raises(RecipeError, match=r"beta = 0.*label_smoothing.*micro_batch_pairs"):
        DpoRecipe(
            StartConfig(Path()), PreferenceData(Path()),
            train=PairTrain(micro_batch_pairs=1),
            dpo=DpoConfig("kto", beta=0, label_smoothing=0.1),
        )  # fmt: skip
