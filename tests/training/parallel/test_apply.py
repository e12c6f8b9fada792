"""Every layout gives the curve and the weights of one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isoflop.core.errors import RecipeError
from isoflop.data.shards import Shards
from isoflop.models.recipe import ModelConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.parallel.recipe import ParallelConfig
from isoflop.training.pretrain import train
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe

STEPS = 20
LOSS, WEIGHTS = 1e-5, 1e-4
"""Largest relative differences to one process: at every step, and of the final weights."""


def recipe_of(shards: Shards, **model: Any) -> TrainRecipe:
    shape: dict[str, Any] = {"d_model": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    return TrainRecipe(
        data=DataConfig(shards=shards.directory),
        model=ModelConfig(**shape | model),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_tokens=1024),
        train=TrainConfig(
            tokens=STEPS * 256, seq_len=32, global_batch_tokens=256, micro_batch_tokens=64,
            eval_tokens=1024, evaluations=2, log_every=1, checkpoint_every=7, threads=1,
            sample_prompts=("Question:",), tensorboard=False,
        ),
    )  # fmt: skip


def rows(run: Path, name: str = "metrics") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def assert_same_curve(found: Path, expected: Path) -> None:
    ours, theirs = rows(found), rows(expected)
    assert [row["step"] for row in ours] == list(range(1, STEPS + 1))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=LOSS)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    for mine, other in zip(rows(found, "evals"), rows(expected, "evals"), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=LOSS)
    assert rows(found, "samples")[-1]["text"] == rows(expected, "samples")[-1]["text"]
    weights, others = (load_file(run / "model" / "model.safetensors") for run in (found, expected))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        distance = torch.linalg.vector_norm(weight - others[name])
        assert distance <= WEIGHTS * torch.linalg.vector_norm(others[name]), name


@pytest.fixture(scope="module")
def alone(
    tiny_shards: Shards, calibrated_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        return train(recipe_of(tiny_shards), tmp_path_factory.mktemp("alone") / "run").run


LAYOUTS = {
    "dp 2": {"dp": 2},
    "fsdp 2": {"fsdp": 2},
    "fsdp 2, zero 1": {"fsdp": 2, "zero": 1},
    "fsdp 4": {"fsdp": 4},
    "dp 2 fsdp 2": {"dp": 2, "fsdp": 2},
    "tp 2": {"tp": 2},
    "fsdp 2 tp 2": {"fsdp": 2, "tp": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_changes_neither_the_curve_nor_the_weights(
    layout: dict[str, int], pool: Any, alone: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    parallel = ParallelConfig(**layout)
    recipe = replace(recipe_of(tiny_shards), parallel=parallel)
    results = pool.run(parallel.devices, train, recipe, tmp_path / "run")
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert all(result == results[0] for result in results)
    assert_same_curve(tmp_path / "run", alone)
