"""A ladder's recipe: what its runs share and in what they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import RecipeError
from isoflop.planning.recipe import LadderRecipe, RungConfig, WidthRule
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, MixtureSource, ModelConfig, TrainConfig

TRAIN = TrainConfig(global_batch_tokens=1024, micro_batch_tokens=512, seq_len=128)


def ladder(**changes: Any) -> LadderRecipe:
    settings: dict[str, Any] = {
        "rungs": (RungConfig(64, 3, (10_000, 20_000)), RungConfig(256, 4, (20_000,))),
        "train": TRAIN,
    }
    return LadderRecipe(data=DataConfig(Path("shards")), **{**settings, **changes})


def test_runs_of_one_size_differ_in_tokens_alone() -> None:
    recipe = ladder()
    short, long = (recipe.run_recipe(recipe.rungs[0], tokens) for tokens in (10_000, 20_000))
    assert (short.train.tokens, long.train.tokens) == (9 * 1024, 19 * 1024)
    assert replace(short, train=replace(short.train, tokens=19 * 1024)) == long


def test_another_trunk_differs_in_its_seed_alone() -> None:
    recipe = ladder()
    one, other = (recipe.run_recipe(recipe.rungs[0], 10_000, trunk) for trunk in (0, 3))
    assert other.train.seed == one.train.seed + 3000
    assert replace(other, train=replace(other.train, seed=one.train.seed)) == one


def test_the_learning_rate_falls_with_the_root_of_the_width() -> None:
    recipe = ladder(optimizer=OptimizerConfig(learning_rate=6e-3), width_rule=WidthRule(64, 0.5))
    rates = [recipe.run_recipe(r, 20_000).optimizer.learning_rate for r in recipe.rungs]
    assert rates == pytest.approx([6e-3, 3e-3])


def test_a_size_takes_its_width_and_depth_from_the_rung_and_the_rest_from_the_model() -> None:
    recipe = ladder(model=ModelConfig(d_model=32, n_layers=9, head_dim=16, tie_embeddings=False))
    model = recipe.run_recipe(recipe.rungs[1], 20_000).model
    assert (model.d_model, model.n_layers, model.head_dim, model.tie_embeddings) == (
        256, 4, 16, False)  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "fraction", "expected"),
    [(10 * 1024, 0.2, 8), (10 * 1024 + 1000, 0.2, 8), (9 * 1024, 0.2, 7), (2 * 1024, 0.7, 0)],
)
def test_the_decay_starts_in_whole_batches_and_never_late(
    tokens: int, fraction: float, expected: int
) -> None:
    recipe = ladder(optimizer=OptimizerConfig(decay_fraction=fraction))
    start = recipe.decay_start(tokens)
    assert start == expected * 1024
    assert start <= (1 - fraction) * recipe.whole_batches(tokens) + 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": OptimizerConfig(schedule="cosine")}, "a ladder needs wsd"),
        ({"optimizer": OptimizerConfig(decay_fraction=0.0)}, "undecayed runs bias a law"),
        ({"rungs": ()}, "rungs is empty"),
        ({"rungs": (RungConfig(64, 3, ()),)}, "rung 64x3: each horizon"),
        ({"rungs": (RungConfig(64, 3, (9000,), seeds=0),)}, "rung 64x3: seeds must be"),
        ({"rungs": (RungConfig(64, 3, (9000, 2047)),)}, "at least two global batches"),
        ({"rungs": (RungConfig(64, 3, (9000,)), RungConfig(64, 3, (8000,)))}, "two rungs are 64x3"),
    ],
)
def test_an_impossible_ladder_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        ladder(**changes)
    assert message in str(caught.value)


def test_a_curriculum_is_refused_since_runs_share_trunks() -> None:
    constant = (MixtureSource("a", Path("a"), weight=1.0), MixtureSource("b", Path("b"), weight=2))
    replace(ladder(), data=DataConfig(mixture=constant))
    moving = (MixtureSource("a", Path("a"), curriculum=((0.0, 1.0), (1.0, 0.5))),)
    with pytest.raises(RecipeError, match="runs of several horizons share a trunk"):
        replace(ladder(), data=DataConfig(mixture=moving))
