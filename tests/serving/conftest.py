"""A small model with its tokenizer, served in this process and over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isoflop.data.shards import Shards
from isoflop.data.tokenizer import Tokenizer, load
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise


def make_decoder(vocab_size: int = 97, seed: int = 0, **changes: object) -> Decoder:
    """A decoder whose every parameter is random and matters."""
    sizes: dict[str, object] = {
        "vocab_size": vocab_size, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
        "head_dim": 8, "d_ff": 48, "max_seq_len": 192,
    }  # fmt: skip
    model = build_model(DecoderConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
    initialise(model, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5, generator=draw)
            elif "embed" in name or not parameter.any():
                parameter.normal_(0.0, 0.4, generator=draw)
    assert isinstance(model, Decoder)
    return model.eval()


@pytest.fixture
def decoder_of() -> Callable[..., Decoder]:
    """`decoder_of(vocab_size=97, seed=0, **changes)`."""
    return make_decoder


@pytest.fixture(scope="session")
def tokenizer(tiny_shards: Shards) -> Tokenizer:
    """A byte-level tokenizer of 300 tokens."""
    return load(tiny_shards.directory.parent / "tokenizer")


@pytest.fixture(scope="session")
def model_dir(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a random model with that tokenizer."""
    out = tmp_path_factory.mktemp("served") / "tiny-model"
    save_model(make_decoder(tokenizer.vocab_size, max_seq_len=256), out, tokenizer.directory)
    return out
