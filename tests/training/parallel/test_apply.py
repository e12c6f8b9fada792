"""Every layout gives the curve and the weights of one process."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isoflop.core.errors import ArtifactError, RecipeError
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


def assert_same_curve(found: Path, expected: Path, first: int = 1) -> None:
    ours, theirs = rows(found), rows(expected)[first - 1 :]
    assert [row["step"] for row in ours] == list(range(first, STEPS + 1))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=LOSS)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert rows(found, "evals")[-1]["loss"] == pytest.approx(
        rows(expected, "evals")[-1]["loss"], rel=LOSS
    )
    assert [row["text"] for row in rows(found, "samples")][-1:] == [
        row["text"] for row in rows(expected, "samples")
    ][-1:]
    weights, others = (load_file(run / "model" / "model.safetensors") for run in (found, expected))
    assert weights.keys() == others.keys()
    norm = torch.linalg.vector_norm
    distances = {n: (norm(w - others[n]) / norm(others[n])).item() for n, w in weights.items()}
    assert max(distances.values()) <= WEIGHTS, distances
    losses = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(ours, theirs, strict=True))
    print(f"largest differences: loss {losses:.1e}, weights {max(distances.values()):.1e}")


@pytest.fixture(scope="module")
def alone(
    tiny_shards: Shards, calibrated_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        return train(recipe_of(tiny_shards), tmp_path_factory.mktemp("alone") / "run").run


LAYOUTS: dict[str, dict[str, Any]] = {
    "dp 2": {"dp": 2},
    "fsdp 2": {"fsdp": 2},
    "tp 2": {"tp": 2},
    "pp 2": {"pp": 2},
    "cp 2": {"cp": 2},
}
LARGE_LAYOUTS: dict[str, dict[str, Any]] = {
    "fsdp 2, zero 1": {"fsdp": 2, "zero": 1},
    "fsdp 4": {"fsdp": 4},
    "dp 2 fsdp 2": {"dp": 2, "fsdp": 2},
    "pp 2, gpipe": {"pp": 2, "schedule": "gpipe"},
    "pp 2 dp 2": {"pp": 2, "dp": 2},
    "pp 2 fsdp 2": {"pp": 2, "fsdp": 2},
    "pp 2 tp 2": {"pp": 2, "tp": 2},
    "cp 4": {"cp": 4},
    "cp 2 fsdp 2": {"cp": 2, "fsdp": 2},
    "cp 2 tp 2": {"cp": 2, "tp": 2},
    "cp 2 pp 2": {"cp": 2, "pp": 2},
    "dp 2 tp 2 pp 2": {"dp": 2, "tp": 2, "pp": 2},
}
DEEP_LAYOUTS: dict[str, dict[str, Any]] = {
    "pp 4": {"pp": 4},
    "pp 2, interleaved": {"pp": 2, "interleave": 2},
    "pp 2 fsdp 2, interleaved": {"pp": 2, "fsdp": 2, "interleave": 2},
}
EXPERTS = {"architecture": "qwen3-moe", "n_experts": 4, "experts_per_token": 2}
EXPERT_LAYOUTS: dict[str, dict[str, Any]] = {
    "dp 2": {"dp": 2},
    "pp 2": {"pp": 2},
    "fsdp 4 ep 2": {"fsdp": 4, "ep": 2},
    "fsdp 4 ep 4": {"fsdp": 4, "ep": 4},
    "dp 2 fsdp 2 ep 2": {"dp": 2, "fsdp": 2, "ep": 2},
    "pp 2 fsdp 2 ep 2": {"pp": 2, "fsdp": 2, "ep": 2},
}


def trained(pool: Any, recipe: TrainRecipe, out: Path, **options: Any) -> Path:
    """The run of as many processes as the recipe's layout is for."""
    results = pool.run(recipe.parallel.devices, partial(train, **options), recipe, out)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert all(result == results[0] for result in results)
    return out


def checked(pool: Any, recipe: TrainRecipe, layout: dict[str, Any], out: Path, alone: Path) -> None:
    recipe = replace(recipe, parallel=ParallelConfig(**layout))
    assert_same_curve(trained(pool, recipe, out / "run"), alone)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_changes_neither_the_curve_nor_the_weights(
    layout: dict[str, Any], pool: Any, alone: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    checked(pool, recipe_of(tiny_shards), layout, tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LARGE_LAYOUTS.values(), ids=LARGE_LAYOUTS)
def test_a_larger_layout_changes_neither_the_curve_nor_the_weights(
    layout: dict[str, Any], pool: Any, alone: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    checked(pool, recipe_of(tiny_shards), layout, tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("layout", DEEP_LAYOUTS.values(), ids=DEEP_LAYOUTS)
def test_layers_dealt_to_four_stages_change_neither_the_curve_nor_the_weights(
    layout: dict[str, Any],
    pool: Any,
    tiny_shards: Shards,
    calibrated: None,
    tmp_path: Path,
) -> None:
    recipe = recipe_of(tiny_shards, n_layers=4)
    checked(pool, recipe, layout, tmp_path, train(recipe, tmp_path / "alone").run)


@pytest.mark.slow
def test_stages_whose_output_layer_is_not_the_embedding(
    pool: Any, tiny_shards: Shards, calibrated: None, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_shards, tie_embeddings=False)
    checked(pool, recipe, {"pp": 2}, tmp_path, train(recipe, tmp_path / "alone").run)


def recipe_with_experts(shards: Shards) -> TrainRecipe:
    recipe = recipe_of(shards, **EXPERTS)
    # With this seed no two experts of a token are so near each other that rounding chooses.
    return replace(recipe, train=replace(recipe.train, seed=1))


@pytest.fixture(scope="module")
def experts_alone(
    tiny_shards: Shards, calibrated_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of one process with a mixture of experts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        out = tmp_path_factory.mktemp("experts") / "run"
        return train(recipe_with_experts(tiny_shards), out).run


def test_experts_dealt_to_two_ranks_change_neither_the_curve_nor_the_weights(
    pool: Any, experts_alone: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    recipe = recipe_with_experts(tiny_shards)
    checked(pool, recipe, {"fsdp": 2, "ep": 2}, tmp_path, experts_alone)


@pytest.mark.slow
@pytest.mark.parametrize("layout", EXPERT_LAYOUTS.values(), ids=EXPERT_LAYOUTS)
def test_a_larger_layout_with_experts_changes_neither_the_curve_nor_the_weights(
    layout: dict[str, Any], pool: Any, experts_alone: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    checked(pool, recipe_with_experts(tiny_shards), layout, tmp_path, experts_alone)


@pytest.fixture(scope="module")
def on_four(pool: Any, tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two axes at once that kept its checkpoint of the tenth step."""
    recipe = recipe_of(tiny_shards)
    recipe = replace(
        recipe,
        train=replace(recipe.train, keep_checkpoints_at=(10 * 256,)),
        parallel=ParallelConfig(fsdp=2, tp=2),
    )
    return trained(pool, recipe, tmp_path_factory.mktemp("four") / "run")


@pytest.mark.slow
def test_sharded_tensors_on_four_processes_change_neither_the_curve_nor_the_weights(
    on_four: Path, alone: Path
) -> None:
    assert_same_curve(on_four, alone)
    assert [path.name for path in sorted((on_four / "ranks").iterdir())] == [
        f"rank_0000{rank}.jsonl" for rank in (1, 2, 3)
    ]


OTHERS = [{}, {"tp": 2}, {"fsdp": 2}, {"pp": 2}]


@pytest.mark.slow
@pytest.mark.parametrize("layout", OTHERS, ids=["alone", "tp 2", "fsdp 2", "pp 2"])
def test_a_checkpoint_of_four_processes_goes_on_in_another_layout(
    layout: dict[str, int],
    pool: Any,
    on_four: Path,
    alone: Path,
    tiny_shards: Shards,
    tmp_path: Path,
) -> None:
    recipe = replace(recipe_of(tiny_shards), parallel=ParallelConfig(**layout))
    saved = on_four / "checkpoints" / "step_00000010"
    assert sorted(path.name for path in saved.glob("__*")) == [f"__{r}_0.distcp" for r in range(4)]
    out = trained(pool, recipe, tmp_path / "run", branch_from=saved)
    assert_same_curve(out, alone, first=11)


@pytest.mark.slow
def test_a_damaged_part_of_another_rank_is_refused_by_all(
    pool: Any, on_four: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    saved = shutil.copytree(on_four / "checkpoints" / "step_00000010", tmp_path / "saved")
    part = saved / "__3_0.distcp"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    recipe = replace(recipe_of(tiny_shards), parallel=ParallelConfig(fsdp=2))
    found = pool.run(2, partial(train, branch_from=saved), recipe, tmp_path / "run")
    assert all(isinstance(error, ArtifactError) and str(part) in str(error) for error in found)


@pytest.mark.slow
def test_a_global_batch_that_does_not_come_out_even_is_the_same_batch(
    pool: Any, tiny_shards: Shards, calibrated: None, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_shards)
    batch = {"global_batch_tokens": 192, "tokens": STEPS * 192}  # three micro-batches
    recipe = replace(recipe, train=replace(recipe.train, **batch))
    expected = train(recipe, tmp_path / "alone").run
    recipe = replace(recipe, parallel=ParallelConfig(fsdp=2))
    assert_same_curve(trained(pool, recipe, tmp_path / "run"), expected)


def test_heads_that_the_layout_does_not_divide_are_named_by_every_rank(
    pool: Any, tiny_shards: Shards, tmp_path: Path
) -> None:
    recipe = replace(recipe_of(tiny_shards, n_kv_heads=1), parallel=ParallelConfig(tp=2))
    for error in pool.run(2, train, recipe, tmp_path / "run"):
        assert isinstance(error, RecipeError)
        assert "parallel.tp = 2 does not divide model.n_kv_heads = 1" in str(error)
