"""A train recipe is checked as a whole, before anything is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import RecipeError
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, ModelConfig, TrainConfig, TrainRecipe


def recipe(**changes: Any) -> TrainRecipe:
    """The default recipe with changes in its tables."""
    return TrainRecipe(data=DataConfig(Path("shards")), **changes)


def test_the_default_recipe_is_one() -> None:
    assert recipe().steps == 5_000_000 // 8192


def test_tokens_are_rounded_down_to_whole_batches() -> None:
    assert recipe(train=TrainConfig(tokens=3 * 8192 - 1)).steps == 2


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("train", {"seq_len": 0}, "train.seq_len = 0 must be at least 1"),
        ("train", {"log_every": -3}, "train.log_every = -3 must be at least 1"),
        ("train", {"threads": 0}, "train.threads = 0 must be at least 1"),
        ("train", {"micro_batch_tokens": 4000}, "not a multiple of train.seq_len"),
        ("train", {"micro_batch_tokens": 3 * 256}, "not a multiple of train.micro_batch_tokens"),
        ("train", {"tokens": 8191}, "less than one global batch"),
        ("train", {"keep_checkpoints_at": (8192, 9000)}, "train.keep_checkpoints_at"),
        ("optimizer", {"learning_rate": 0.0}, "optimizer.learning_rate = 0.0 must be positive"),
        ("optimizer", {"learning_rate": float("nan")}, "optimizer.learning_rate = nan"),
        ("optimizer", {"clip_norm": -1.0}, "optimizer.clip_norm"),
        ("optimizer", {"weight_decay": -0.1}, "optimizer.weight_decay"),
        ("optimizer", {"warmup_tokens": -1}, "optimizer.warmup_tokens"),
        ("optimizer", {"beta1": 1.0}, "optimizer.beta1 = 1.0 is outside [0, 1)"),
        ("optimizer", {"decay_fraction": 1.5}, "optimizer.decay_fraction = 1.5"),
        ("model", {"d_model": 100}, "model.d_model = 100 is not a multiple of 32"),
        ("model", {"d_model": 0}, "model.d_model = 0"),
        ("model", {"head_dim": 0}, "model.head_dim = 0"),
        ("model", {"head_dim": 48}, "give model.n_heads"),
    ],
)
def test_an_impossible_value_is_named(table: str, change: dict[str, Any], message: str) -> None:
    tables = {"train": TrainConfig(), "optimizer": OptimizerConfig(), "model": ModelConfig()}
    with pytest.raises(RecipeError) as caught:
        recipe(**{table: replace(tables[table], **change)})
    assert message in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(model=ModelConfig(d_model=33), optimizer=OptimizerConfig(beta2=2.0, eps=-1.0))
    assert all(name in str(caught.value) for name in ("d_model", "beta2", "eps"))


def test_what_the_shape_leaves_out_follows_from_the_width() -> None:
    shape = ModelConfig(d_model=96).decoder_config(vocab_size=300, max_seq_len=64)
    assert (shape.n_heads, shape.n_kv_heads, shape.d_ff) == (3, 3, 256)
    given = ModelConfig(d_model=96, n_heads=6, n_kv_heads=2, d_ff=100, head_dim=8)
    shape = given.decoder_config(vocab_size=300, max_seq_len=64)
    assert (shape.n_heads, shape.n_kv_heads, shape.d_ff) == (6, 2, 100)
