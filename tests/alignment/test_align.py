"""The recipe of all stages of alignment; the runs themselves are `benchmarks/alignment.py`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from isoflop.alignment.dpo_recipe import DpoRecipe, RewardRecipe
from isoflop.alignment.policy_recipe import GrpoRecipe, PpoRecipe
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.core.recipe import from_dict

PATH = Path(__file__).resolve().parents[2] / "recipes" / "align.toml"
STAGES = {
    "sft": SftRecipe,
    "grpo": GrpoRecipe,
    "ppo": PpoRecipe,
    "dpo": DpoRecipe,
    "reward": RewardRecipe,
}


@pytest.mark.parametrize("stage", STAGES)
def test_each_table_is_a_whole_recipe_of_its_command(stage: str) -> None:
    tables: dict[str, Any] = tomllib.loads(PATH.read_text(encoding="utf-8"))
    assert set(tables) == set(STAGES)
    recipe = from_dict(STAGES[stage], tables[stage], stage)
    assert recipe.train.tensorboard is False
    # Policies and preferences begin where fine-tuning ended.
    start = "base" if stage in ("sft", "reward") else "sft/model"
    assert recipe.model.path.as_posix() == start
