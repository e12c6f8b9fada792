"""Every form of decoder through the one loop: learns, resumes to the same bits, opens elsewhere."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.core.errors import RecipeError
from isoflop.models.convert import load_decoder
from isoflop.models.recipe import ModelConfig
from isoflop.training import pretrain
from isoflop.training.objective_recipe import ObjectiveConfig
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe
from isoflop.training.stops import Interrupted

pytestmark = pytest.mark.usefixtures("calibrated")

FORMS = {
    "llama": ModelConfig(architecture="llama", d_model=32, n_layers=1),
    "gpt2": ModelConfig(architecture="gpt2", d_model=32, n_layers=1),
    "sinusoids": ModelConfig(
        architecture="gpt2", positions="sinusoidal", d_model=32, n_layers=1
    ),
    "alibi, window": ModelConfig(
        architecture="gpt2", positions="alibi", window=8, d_model=32, n_layers=1
    ),
    "qwen3-moe": ModelConfig(
        architecture="qwen3-moe", d_model=32, n_layers=1, n_experts=4, n_shared_experts=1
    ),
    "mixtral": ModelConfig(architecture="llama", d_model=32, n_layers=1, n_experts=4, d_ff=64),
    "a preset made small": ModelConfig(
        preset="qwen3-30b-a3b", d_model=128, n_layers=1, n_experts=4, experts_per_token=2
    ),
}  # fmt: skip


def _recipe(recipe: TrainRecipe, model: ModelConfig, steps: int = 24) -> TrainRecipe:
    short = replace(recipe.train, tokens=steps * 256, evaluations=1, sample_prompts=("Question:",))
    return replace(recipe, model=model, train=short)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_run_learns_and_continues_to_the_same_bits(
    form: str, train_recipe: TrainRecipe, tmp_path: Path,
    content_of: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = _recipe(train_recipe, FORMS[form])
    whole = train(recipe, tmp_path / "whole")
    first = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[0])
    assert whole.loss < first["loss"] - 0.5
    calls = iter(range(100))

    def stopped(*args: Any) -> torch.Tensor:
        if next(calls) == 25:  # in the thirteenth step: two micro-batches each
            signal.raise_signal(signal.SIGTERM)
        return next_token_loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "next_token_loss", stopped)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "parts")
    train(recipe, tmp_path / "parts")
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")


@pytest.mark.parametrize("form", ["llama", "gpt2", "mixtral"])
def test_the_model_of_a_run_opens_in_transformers(
    form: str, train_recipe: TrainRecipe, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    run = train(_recipe(train_recipe, FORMS[form], steps=4), tmp_path / "run").run
    ours = load_decoder(run / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run / "model")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-5, rtol=0)


def test_micro_batches_change_no_loss_of_a_mixture_of_experts(
    train_recipe: TrainRecipe, tmp_path: Path
) -> None:
    curves = []
    for micro in (256, 32):
        recipe = _recipe(train_recipe, FORMS["qwen3-moe"])
        recipe = replace(recipe, train=replace(recipe.train, micro_batch_tokens=micro, log_every=1))
        train(recipe, tmp_path / str(micro))
        rows = (tmp_path / str(micro) / "metrics.jsonl").read_text().splitlines()
        curves.append([json.loads(row)["loss"] for row in rows])
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)


def test_evaluations_tell_how_experts_are_used(train_recipe: TrainRecipe, tmp_path: Path) -> None:
    run = train(_recipe(train_recipe, FORMS["qwen3-moe"]), tmp_path / "run").run
    row = json.loads((run / "evals.jsonl").read_text())
    assert row["experts_unused"] == 0
    assert 1 <= row["experts_largest_share"] <= 4
    assert 0 < row["experts_entropy"] <= 1


def test_the_loss_of_a_mixture_is_the_cross_entropy_and_its_gradient_has_both(
    decoder_of: Callable[..., Any], batch_of: Callable[..., TokenBatch]
) -> None:
    from isoflop.models.config import ExpertsConfig

    batch = batch_of(4, ends=(1, 0, 2, 0))
    gradients = []
    for coefficient in (0.0, 1.0):
        experts = ExpertsConfig(4, 2, 16, balance_coefficient=coefficient, z_coefficient=0.0)
        model = decoder_of(experts=experts)
        loss = next_token_loss(model, batch)
        logits = model(batch.ids_BT, batch.document_BT).flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(
            logits, batch.labels_BT.flatten(), reduction="sum"
        )
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        loss.backward()
        gradients.append(model.layers[0].mlp.gate.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_what_is_no_decoder_does_not_foretell_the_next_token(
    name: Any, train_recipe: TrainRecipe
) -> None:
    causal = replace(train_recipe, objective=ObjectiveConfig(kind="causal"))
    with pytest.raises(RecipeError, match=f"objective.kind = causal, but {name} takes"):
        replace(causal, model=ModelConfig(architecture=name))
