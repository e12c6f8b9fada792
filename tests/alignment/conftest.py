"""A small model and a small instruction set for runs of alignment."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.core.recipe import from_dict
from isoflop.data import instruct
from isoflop.data.instruct_recipe import InstructRecipe
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

SOURCE = {
    "kind": "generated", "problems": ["sum"], "languages": ["en"], "count": 60, "preferences": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model and a small instruction set."""
    out = tmp_path_factory.mktemp("alignment")
    tokens = tiny_shards.directory.parent / "tokenizer"
    config = DecoderConfig(
        vocab_size=load_tokenizer(tokens).vocab_size + 20, d_model=32, n_layers=2, n_heads=2,
        n_kv_heads=1, head_dim=16, d_ff=64, max_seq_len=96,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 0)
    save_model(model, out / "model", tokens)
    recipe = from_dict(InstructRecipe, {"sources": [SOURCE]}, "test")
    instruct.instruct(recipe, out / "set")
    return out
