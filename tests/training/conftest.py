"""Tiny models, batches and recipes, and runs that are interrupted or not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from isoflop.core.recipe import load_recipe
from isoflop.data.loader import IGNORED
from isoflop.data.shards import Shards
from isoflop.models.config import Architecture, DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.recipe import ModelConfig
from isoflop.training import loop
from isoflop.training.objectives import TokenBatch
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.pretrain import train
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe
from isoflop.training.stops import Interrupted

ModelT = TypeVar("ModelT", bound=torch.nn.Module)
VOCAB_SIZE, SEQ_LEN = 61, 16


@pytest.fixture(scope="session")
def train_recipe(train_toml: Path) -> TrainRecipe:
    return load_recipe(train_toml, TrainRecipe)


@pytest.fixture(scope="session")
def whole_run(
    train_recipe: TrainRecipe, calibrated_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The directory of a finished run of `train_recipe`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        return train(train_recipe, tmp_path_factory.mktemp("runs") / "whole").run


@pytest.fixture
def decoder_of() -> Callable[..., Decoder]:
    """`decoder_of(seed=0, **changes)`: a decoder in which every parameter is random."""

    def build(seed: int = 0, **changes: object) -> Decoder:
        sizes: dict[str, object] = {
            "vocab_size": VOCAB_SIZE, "d_model": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1,
            "head_dim": 16, "d_ff": 48, "max_seq_len": SEQ_LEN,
        }  # fmt: skip
        model = Decoder(DecoderConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
        initialise(model, seed)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("norm.weight"):
                    parameter.uniform_(0.5, 1.5, generator=draw)
                elif name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight")):
                    parameter.normal_(0.0, 0.2, generator=draw)
        return model

    return build


@pytest.fixture
def batch_of() -> Callable[..., TokenBatch]:
    """`batch_of(rows, seed, ends)`: a batch in which each row has that many document ends."""

    def build(rows: int, seed: int = 0, ends: tuple[int, ...] = ()) -> TokenBatch:
        draw = np.random.default_rng(seed)
        ids = draw.integers(1, VOCAB_SIZE, (rows, SEQ_LEN))
        labels = draw.integers(1, VOCAB_SIZE, (rows, SEQ_LEN))
        document = np.zeros((rows, SEQ_LEN), dtype=np.int64)
        for row, count in enumerate(ends):
            for at in draw.choice(SEQ_LEN - 1, count, replace=False):
                labels[row, at] = IGNORED
                document[row, at + 1 :] += 1
        order = np.argsort(document[:, -1] > 0, kind="stable")
        ids, labels, document = ids[order], labels[order], document[order]
        return TokenBatch(
            *(torch.from_numpy(x) for x in (ids, labels, document)),
            n_valid=int((labels != IGNORED).sum()),
        )

    return build


@pytest.fixture(scope="session")
def marked_recipe(marked_shards: Shards) -> Callable[..., TrainRecipe]:
    """`marked_recipe(architecture, packing, steps, prompt)`: some steps of a tiny encoder or
    encoder-decoder."""

    def build(architecture: Architecture, packing: Any, steps: int, prompt: str) -> TrainRecipe:
        return TrainRecipe(
            data=DataConfig(shards=marked_shards.directory, packing=packing),
            model=ModelConfig(architecture=architecture, d_model=32, n_layers=1),
            optimizer=OptimizerConfig(learning_rate=5e-3, warmup_tokens=1024),
            train=TrainConfig(
                tokens=steps * 512, seq_len=32, global_batch_tokens=512, micro_batch_tokens=256,
                eval_tokens=2048, evaluations=2, log_every=5, checkpoint_every=16, threads=1,
                sample_prompts=(prompt,), tensorboard=False,
            ),
        )  # fmt: skip

    return build


@pytest.fixture
def randomised() -> Callable[[ModelT, int], ModelT]:
    """`randomised(model, seed)`: the model with initial weights, and no block an identity."""

    def fill(model: ModelT, seed: int = 0) -> ModelT:
        initialise(model, seed)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter.normal_(0.0, 0.2, generator=draw)
        return model

    return fill


@pytest.fixture
def killed_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[TrainRecipe, int], tuple[Path, Path]]:
    """`killed_and_continued(recipe, step)`: a run of one go, and one that dies within a step and
    goes on from its last checkpoint."""

    def runs(recipe: TrainRecipe, step: int) -> tuple[Path, Path]:
        whole, calls, real = (
            train(recipe, tmp_path / "whole").run,
            itertools.count(1),
            loop.apply_gradient,
        )

        def dying(optimizer: torch.optim.Optimizer, lr: float) -> None:
            if next(calls) == step:
                raise Interrupted(9)
            real(optimizer, lr)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "apply_gradient", dying)
            with pytest.raises(Interrupted):
                train(recipe, tmp_path / "killed")
        return whole, train(recipe, tmp_path / "killed").run

    return runs
