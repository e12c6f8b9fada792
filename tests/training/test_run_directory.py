"""A run directory belongs to one recipe, and says so when another comes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.core.artifact import read_manifest
from isoflop.core.errors import ArtifactError, RunError
from isoflop.core.recipe import from_dict
from isoflop.data.shards import Shards
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe
from isoflop.training.run_directory import claim, seal


@pytest.fixture
def recipe(tiny_shards: Shards) -> TrainRecipe:
    return TrainRecipe(data=DataConfig(tiny_shards.directory))


@pytest.fixture
def claimed(recipe: TrainRecipe, tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    claim(directory, recipe)
    return directory


def changed(recipe: TrainRecipe, table: str, **changes: object) -> TrainRecipe:
    return replace(recipe, **{table: replace(getattr(recipe, table), **changes)})


def test_the_resolved_recipe_is_kept_and_read_back_equal(
    claimed: Path, recipe: TrainRecipe
) -> None:
    kept = json.loads((claimed / "config.json").read_text())
    assert from_dict(TrainRecipe, kept["recipe"], "config.json") == recipe


def test_the_same_recipe_may_continue(claimed: Path, recipe: TrainRecipe) -> None:
    before = (claimed / "config.json").read_bytes()
    claim(claimed, recipe)
    assert (claimed / "config.json").read_bytes() == before


def test_threads_and_micro_batches_may_change(claimed: Path, recipe: TrainRecipe) -> None:
    before = (claimed / "config.json").read_bytes()
    claim(claimed, changed(recipe, "train", threads=3, micro_batch_tokens=2048))
    assert (claimed / "config.json").read_bytes() == before


def test_another_recipe_is_refused_and_the_keys_that_differ_are_named(
    claimed: Path, recipe: TrainRecipe
) -> None:
    other = changed(changed(recipe, "optimizer", learning_rate=0.5), "train", seed=4)
    with pytest.raises(RunError) as caught:
        claim(claimed, other)
    assert str(caught.value) == (
        f"{claimed}: this run was started with another recipe: optimizer.learning_rate was 0.004, "
        "now 0.5; train.seed was 0, now 4. Use the recipe it was started with, or another "
        "directory with -o."
    )


def test_the_same_shards_may_have_moved_and_other_shards_are_refused(
    claimed: Path, recipe: TrainRecipe, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(recipe.data.shards, moved)
    claim(claimed, replace(recipe, data=DataConfig(moved)))
    manifest = json.loads((moved / "manifest.json").read_text())
    manifest["config_sha256"] = "0" * 64
    (moved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"data\.shards were other shards"):
        claim(claimed, replace(recipe, data=DataConfig(moved)))


@pytest.mark.parametrize("config", ['{"format": 99, "isoflop_version": "7.1"}', "[]"])
def test_a_run_of_another_version_is_refused(
    claimed: Path, recipe: TrainRecipe, config: str
) -> None:
    (claimed / "config.json").write_text(config)
    with pytest.raises(RunError, match=r"in a format that .* does not continue"):
        claim(claimed, recipe)


def test_a_directory_with_something_else_is_refused_and_left_alone(
    recipe: TrainRecipe, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"not a run: it has no config.json but holds thesis.tex"):
        claim(tmp_path, recipe)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_shards_that_are_not_there_are_named(recipe: TrainRecipe, tmp_path: Path) -> None:
    gone = replace(recipe, data=DataConfig(tmp_path / "gone"))
    with pytest.raises(ArtifactError, match="no such shards directory") as caught:
        claim(tmp_path, gone)
    assert str(caught.value).startswith(str(tmp_path / "gone"))


def test_the_seal_vouches_for_logs_result_and_model(claimed: Path, recipe: TrainRecipe) -> None:
    for name in ("result.json", "metrics.jsonl", "evals.jsonl", "samples.jsonl"):
        (claimed / name).write_text("{}")
    (claimed / "model").mkdir()
    (claimed / "model" / "weights").write_text("w")
    seal(claimed, recipe)
    manifest = read_manifest(claimed, "run", verify=True)
    assert {"config.json", "metrics.jsonl", "model/weights"} <= manifest.files.keys()
    assert manifest.seed == TrainConfig().seed
    assert [Path(i["path"]) for i in manifest.inputs] == [recipe.data.shards]
    (claimed / "metrics.jsonl").write_text("{} ")
    with pytest.raises(ArtifactError, match="differs from its hash"):
        read_manifest(claimed, "run", verify=True)
