"""A real chain of artifacts: lines → corpus → tokenizer → shards → run → evaluation, ladder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from isoflop.core.recipe import load_recipe
from isoflop.data.shards import Shards
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe

SHORT = (
    "--train.no-native-kernels",
    "--train.tokens",
    "2560",
    "--train.evaluations",
    "1",
    "--train.eval-tokens",
    "512",
)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_shards: Shards, train_toml: Path,
    calibrated_cache: Path,
) -> Path:  # fmt: skip
    """A finished run of ten steps, from the tiny shards."""
    run = tmp_path_factory.mktemp("inventory") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        train(load_recipe(train_toml, TrainRecipe, SHORT), run)
    return run


@pytest.fixture
def unfinished(trained: Path, tmp_path: Path) -> Path:
    """The same run as a kill before its end would have left it."""
    run = tmp_path / "killed"
    shutil.copytree(trained, run)
    for name in ("manifest.json", "result.json"):
        (run / name).unlink()
    shutil.rmtree(run / "model")
    return run
