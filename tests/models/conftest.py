"""Tiny decoders with weights that matter: every parameter random, none at its initial zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

SHAPES = {
    "multi-head, tied": {},
    "grouped-query": {"n_kv_heads": 2},
    "multi-query": {"n_kv_heads": 1},
    "untied": {"tie_embeddings": False},
    "heads wider than the stream": {"head_dim": 32, "n_kv_heads": 2},
    "one layer, odd sizes": {"n_layers": 1, "vocab_size": 67, "d_ff": 41, "rope_theta": 500.0},
}


def make_config(**changes: object) -> DecoderConfig:
    """A decoder of some ten thousand parameters."""
    sizes: dict[str, object] = {
        "vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4,
        "head_dim": 8, "d_ff": 48, "max_seq_len": 32,
    }  # fmt: skip
    return DecoderConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def make_decoder(seed: int = 0, **changes: object) -> Decoder:
    """A decoder whose residual writers and gains are random too, so that every part shows."""
    decoder = Decoder(make_config(**changes))
    initialise(decoder, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5, generator=draw)
            elif name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight")):
                parameter.normal_(0.0, 0.2, generator=draw)
    return decoder.eval()


@pytest.fixture(params=SHAPES, ids=str)
def any_decoder(request: pytest.FixtureRequest) -> Decoder:
    """A decoder of each shape in turn."""
    return make_decoder(**SHAPES[request.param])


@pytest.fixture
def decoder_of() -> Callable[..., Decoder]:
    """`decoder_of(seed=0, **changes)`."""
    return make_decoder


@pytest.fixture
def config_of() -> Callable[..., DecoderConfig]:
    """`config_of(**changes)`."""
    return make_config
