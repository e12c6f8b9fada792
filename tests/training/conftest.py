"""Tiny decoders and batches, and one run of the tiny recipe that nothing interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from isoflop.core.recipe import load_recipe
from isoflop.data.loader import IGNORED
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.objectives import TokenBatch
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe

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
