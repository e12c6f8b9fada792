"""A probe costs what real steps cost and leaves nothing behind."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoflop.data.shards import Shards
from isoflop.training import probe as module
from isoflop.training.probe import probe
from isoflop.training.recipe import TrainRecipe


def test_a_probe_trains_real_steps_and_leaves_nothing_behind(
    train_recipe: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = probe(train_recipe, seconds=0.2)
    assert 0 < found.seconds_per_step < 1
    assert found.evaluation_seconds > 0
    assert found.peak_memory_bytes > 50e6
    assert not list(tmp_path.iterdir())


def test_the_evaluation_is_scaled_to_its_tokens_and_the_samples_are_not(
    train_recipe: TrainRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = [], module.next_token_task

    def slow(recipe: TrainRecipe, shards: Shards) -> Any:
        asked.append(recipe.train.eval_tokens)
        return replace(
            real(recipe, shards),
            evaluate=lambda model: time.sleep(0.05),
            samples=lambda model: time.sleep(0.2),
        )

    monkeypatch.setattr(module, "next_token_task", slow)
    monkeypatch.setattr(module, "EVAL_TOKENS", 256)  # an eighth of the recipe's
    found = probe(train_recipe, seconds=0.1)
    assert asked == [256]
    assert 8 * 0.05 + 0.2 <= found.evaluation_seconds < 8 * 0.15 + 0.6
