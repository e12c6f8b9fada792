"""Initial weights depend on (seed, name, shape) and nothing else, and start training gently."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from isoflop.models.decoder import Decoder
from isoflop.models.initialise import EMBEDDING_STD, draw_normal, initialise


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class _View(nn.Module):
    """Some parameters of a decoder, in an order of their own: what a pipeline stage holds."""

    def __init__(self, decoder: Decoder, names: list[str]) -> None:
        super().__init__()
        self._held = {name: dict(decoder.named_parameters())[name] for name in names}

    def named_parameters(self, *args: object, **kwargs: object) -> Iterator:
        return iter(self._held.items())


def test_order_of_building_and_random_state_change_nothing(config_of):
    first, second = Decoder(config_of()), Decoder(config_of())
    torch.manual_seed(0)
    initialise(first, seed=3)
    torch.manual_seed(1)
    initialise(_View(second, list(_weights(second))[::-1]), seed=3)
    for name, value in _weights(first).items():
        assert torch.equal(value, _weights(second)[name]), name


def test_a_stage_that_holds_one_layer_draws_what_the_whole_model_draws(config_of):
    whole, stage = Decoder(config_of()), Decoder(config_of())
    initialise(whole, seed=3)
    names = [name for name in _weights(stage) if name.startswith("layers.1.")]
    initialise(_View(stage, names), seed=3)
    for name in names:
        assert torch.equal(_weights(stage)[name], _weights(whole)[name]), name


def test_the_default_dtype_changes_nothing():
    shape = torch.Size((40, 3))
    expected = draw_normal(0, "x.weight", shape, 1.0)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(draw_normal(0, "x.weight", shape, 1.0), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_seeds_and_names_differ(config_of):
    one, two = Decoder(config_of()), Decoder(config_of())
    initialise(one, seed=0)
    initialise(two, seed=1)
    drawn = [n for n, p in _weights(one).items() if p.std() > 0]
    assert len(drawn) == 1 + 2 * 5  # embedding; q, k, v, gate, up of each layer
    for name in drawn:
        assert not torch.equal(_weights(one)[name], _weights(two)[name]), name
    values = [tuple(_weights(one)[name].flatten()[:4].tolist()) for name in drawn]
    assert len(set(values)) == len(values)


def test_matrices_have_the_variance_that_keeps_activations_their_size(config_of):
    decoder = Decoder(config_of(d_model=256, head_dim=32, n_heads=8, n_kv_heads=8, d_ff=512))
    initialise(decoder, seed=0)
    for name, value in _weights(decoder).items():
        if name.endswith("norm.weight"):
            assert torch.equal(value, torch.ones_like(value))
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            assert not value.any()
        else:
            std = EMBEDDING_STD if "embed" in name else 256**-0.5
            # The sample standard deviation of n values is off by std/√(2n); five of those.
            bound = 5 / math.sqrt(2 * value.numel())
            assert value.std().item() == pytest.approx(std, rel=bound), name
            assert abs(value.mean().item()) < 5 * std / math.sqrt(value.numel()), name


@pytest.mark.parametrize("width", [32, 128, 512])
@torch.no_grad()
def test_a_new_tied_model_predicts_evenly_but_for_the_token_just_read(config_of, width):
    config = config_of(d_model=width, n_heads=width // 8, n_kv_heads=width // 8, vocab_size=503)
    decoder = Decoder(config)
    initialise(decoder, seed=0)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(503, (8, 33), generator=draw)
    logits = decoder(ids[:, :-1])
    read = ids[:, :-1, None]
    # Normalised states times rows of standard deviation 0.02: 0.02 · √width for a row of another
    # token, 0.02 · width for the row the state came from.
    others = logits.scatter(-1, read, float("nan"))
    assert others.nanmean().abs() < 0.01
    spread = others[~others.isnan()].std().item()
    assert spread == pytest.approx(EMBEDDING_STD * math.sqrt(width), rel=0.1)
    own = logits.gather(-1, read).mean().item()
    assert own == pytest.approx(EMBEDDING_STD * width, rel=0.1)
    if width <= 128:
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert loss.item() == pytest.approx(math.log(503), rel=0.02)
