"""Parts that add nothing are the ones taken out, and taking them out changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from isoflop.compression.drop import drop_parts, dropped_config, kept_layers, part_norms
from isoflop.compression.recipe import StudentConfig
from isoflop.core.errors import RecipeError
from isoflop.data.loader import Windows
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder

CONFIG = DecoderConfig(
    vocab_size=61, d_model=32, n_layers=3, n_heads=8, n_kv_heads=4, head_dim=8, d_ff=64,
    max_seq_len=32,
)  # fmt: skip
KEEP_ALL = StudentConfig(drop_neurons=0.0)


def decoder_of(config: DecoderConfig = CONFIG) -> Decoder:
    torch.manual_seed(0)
    model = build_model(config)
    assert isinstance(model, Decoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def windows() -> Windows:
    ids = np.random.default_rng(0).integers(0, 61, (6, 33))
    return Windows(ids[:, :-1], ids[:, 1:], np.zeros((6, 32), dtype=np.int32))


def logits_of(decoder: Decoder, windows: Windows) -> torch.Tensor:
    with torch.no_grad():
        return decoder(torch.from_numpy(windows.ids_BT))


def test_neurons_and_heads_that_add_nothing_are_taken_out_unnoticed(windows: Windows) -> None:
    full = decoder_of()
    with torch.no_grad():
        for number, block in enumerate(full.layers):
            # In each layer others: half of the neurons, and two of the four groups of two heads.
            block.mlp.down_proj.weight[:, number : number + 32] = 0
            for group in (number, 3 if number < 3 else 0):
                block.self_attn.o_proj.weight[:, 16 * group : 16 * group + 16] = 0
    share = replace(KEEP_ALL, drop_neurons=0.5, drop_heads=0.5)
    small = drop_parts(full, share, windows)
    assert (small.config.d_ff, small.config.n_heads, small.config.n_kv_heads) == (32, 4, 2)
    torch.testing.assert_close(logits_of(small, windows), logits_of(full, windows))


def test_the_layer_that_adds_nothing_is_taken_out(windows: Windows) -> None:
    full = decoder_of()
    with torch.no_grad():
        full.layers[1].self_attn.o_proj.weight.zero_()
        full.layers[1].mlp.down_proj.weight.zero_()
    assert kept_layers(full, 2, windows) == [0, 2]
    small = drop_parts(full, replace(KEEP_ALL, drop_layers=0.34), windows)
    assert small.config.n_layers == 2
    torch.testing.assert_close(logits_of(small, windows), logits_of(full, windows))
    assert full.config.n_layers == len(full.layers) == 3


def test_biases_of_what_is_kept_go_along(windows: Windows) -> None:
    config = replace(
        CONFIG, norm="layer", activation="gelu", bias=True, qk_norm=False, positions="learned"
    )
    full = decoder_of(config)
    with torch.no_grad():
        for block in full.layers:
            block.mlp.down_proj.weight[:, 32:] = 0
            block.self_attn.o_proj.weight[:, :16] = 0
    small = drop_parts(full, replace(KEEP_ALL, drop_neurons=0.5, drop_heads=0.25), windows)
    torch.testing.assert_close(logits_of(small, windows), logits_of(full, windows))


def test_the_norm_of_a_part_is_that_of_what_it_writes_into_the_stream(windows: Windows) -> None:
    full = decoder_of(replace(CONFIG, n_layers=1))
    heads, neurons = part_norms(full, windows)
    seen: dict[str, torch.Tensor] = {}
    block = full.layers[0]
    block.fuses_attention = block.fuses_feed_forward = False
    for name, module in (("o", block.self_attn.o_proj), ("down", block.mlp.down_proj)):
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.__setitem__(name, inputs[0].flatten(0, -2).double())
        )
    logits_of(full, windows)
    out = block.self_attn.o_proj.weight.double()[:, 16:32]
    wanted = (seen["o"][:, 16:32] @ out.T).square().sum()
    torch.testing.assert_close(heads[0][1], wanted, rtol=1e-5, atol=0)
    down = block.mlp.down_proj.weight.double()[:, 5]
    torch.testing.assert_close(
        neurons[0][5], (seen["down"][:, 5, None] * down).square().sum(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(
    ("config", "student", "said"),
    [
        (CONFIG, replace(KEEP_ALL, drop_layers=0.1), "none of the 3 layers"),
        (replace(CONFIG, positions="alibi"), replace(KEEP_ALL, drop_heads=0.5), "alibi"),
        (replace(CONFIG, n_kv_heads=1), replace(KEEP_ALL, drop_heads=0.5), "none of the 1 key"),
    ],
)
def test_what_cannot_be_dropped_is_refused(
    config: DecoderConfig, student: StudentConfig, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        dropped_config(config, student)
