"""Fine-tuning and preference learning on two ranks are those of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isoflop.alignment.dpo_recipe import DpoRecipe, PairTrain, PreferenceData
from isoflop.alignment.dpo_run import dpo
from isoflop.alignment.sft import sft
from isoflop.alignment.sft_recipe import InstructData, SftRecipe, SftTrainConfig, StartConfig
from isoflop.core.recipe import from_dict
from isoflop.data import instruct
from isoflop.data.instruct_recipe import InstructRecipe
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.parallel.recipe import ParallelConfig

STEPS = 20
SOURCE = {
    "kind": "generated", "problems": ["sum"], "languages": ["en"], "count": 60, "preferences": 60,
}  # fmt: skip
OFTEN = {"log_every": 1, "threads": 1, "tensorboard": False}


@pytest.fixture(scope="module")
def folder(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model and a small instruction set."""
    out = tmp_path_factory.mktemp("alignment")
    tokens = tiny_shards.tokenizer_directory
    config = DecoderConfig(
        vocab_size=load_tokenizer(tokens).vocab_size + 20, d_model=32, n_layers=2, n_heads=2,
        n_kv_heads=1, head_dim=16, d_ff=64, max_seq_len=96,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 0)
    save_model(model, out / "model", tokens)
    instruct.instruct(from_dict(InstructRecipe, {"sources": [SOURCE]}, "test"), out / "set")
    return out


def sft_recipe(folder: Path) -> SftRecipe:
    return SftRecipe(
        model=StartConfig(folder / "model"),
        data=InstructData(folder / "set"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_tokens=0),
        train=SftTrainConfig(
            epochs=2.2, global_batch_tokens=576, micro_batch_tokens=96, eval_answers=2,
            max_new_tokens=4, neftune_alpha=5.0, **OFTEN,
        ),
    )  # fmt: skip


def dpo_recipe(folder: Path) -> DpoRecipe:
    return DpoRecipe(
        model=StartConfig(folder / "model"),
        data=PreferenceData(folder / "set"),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_tokens=0),
        train=PairTrain(epochs=2, batch_pairs=5, micro_batch_pairs=2, **OFTEN),
    )


RUNS: dict[str, tuple[Callable[..., Any], Callable[[Path], Any]]] = {
    "sft": (sft, sft_recipe),
    "dpo": (dpo, dpo_recipe),
}


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_have_the_curve_and_the_weights_of_one(
    name: str, folder: Path, pool: Any, calibrated: None, tmp_path: Path
) -> None:
    run, make = RUNS[name]
    recipe = make(folder)
    alone = run(recipe, tmp_path / "alone")
    sharded = replace(recipe, parallel=ParallelConfig(fsdp=2))
    for result in pool.run(2, run, sharded, tmp_path / "run"):
        if isinstance(result, BaseException):
            raise result
        assert result.steps == alone.steps >= STEPS
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / where / "metrics.jsonl").read_text().splitlines()]
        for where in ("run", "alone")
    )
    assert len(ours) == len(theirs) == alone.steps
    for mine, other in list(zip(ours, theirs, strict=True))[:STEPS]:
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)
    weights, others = (
        load_file(tmp_path / where / "model" / "model.safetensors") for where in ("run", "alone")
    )
    for key, weight in weights.items():
        distance = torch.linalg.vector_norm(weight - others[key])
        assert distance <= 1e-4 * torch.linalg.vector_norm(others[key]), key
