"""Layers added on top change nothing until they are trained."""

from __future__ import annotations

import pytest
import torch

from isoflop.core.errors import RecipeError
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.deepen import deepened
from isoflop.models.initialise import draw_normal, initialise


def trained_looking(**shape: object) -> Decoder:
    """A decoder none of whose weights is as it was initialised."""
    config = DecoderConfig(
        vocab_size=50, d_model=32, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=64,
        **shape,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(draw_normal(7, name, parameter.shape, 0.1))
    return model.eval()


@pytest.mark.parametrize("extra", [1, 3])
def test_a_deeper_model_computes_the_same_bits(extra: int) -> None:
    model = trained_looking()
    deeper = deepened(model, extra, seed=3)
    ids = torch.arange(40).reshape(2, 20)
    assert deeper.config.n_layers == 1 + extra
    torch.testing.assert_close(deeper(ids), model(ids), rtol=0, atol=0)


def test_the_new_layers_learn() -> None:
    deeper = deepened(trained_looking(), 1, seed=3).train()
    ids = torch.arange(40).reshape(2, 20)
    deeper(ids).square().mean().backward()
    grown = {name: p.grad for name, p in deeper.named_parameters() if name.startswith("layers.1")}
    written = [
        g for name, g in grown.items() if name.endswith(("o_proj.weight", "down_proj.weight"))
    ]
    assert written
    assert all(g is not None and g.abs().max() > 0 for g in written)


def test_no_layers_more_is_the_model_itself() -> None:
    model = trained_looking()
    assert deepened(model, 0, seed=3) is model


def test_blocks_that_normalise_after_their_sums_are_refused() -> None:
    with pytest.raises(RecipeError, match="cannot begin as the identity"):
        deepened(trained_looking(post_norm=True), 1, seed=3)
