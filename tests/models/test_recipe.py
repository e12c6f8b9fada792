"""The [model] table: what is left out, what cannot be, and what a preset fills in."""

from __future__ import annotations

from typing import Any

import pytest

from isoflop.core.errors import RecipeError
from isoflop.core.recipe import from_dict
from isoflop.models.config import DecoderConfig, EncoderConfig, EncoderDecoderConfig
from isoflop.models.presets import PRESETS
from isoflop.models.recipe import ModelConfig


def test_what_is_left_out_follows_from_the_width():
    qwen3 = ModelConfig(d_model=96).decoder_config(300, 64)
    assert (qwen3.n_heads, qwen3.n_kv_heads, qwen3.d_ff, qwen3.n_layers) == (3, 3, 256, 4)
    assert qwen3.qk_norm
    assert qwen3.rope_theta == 10_000.0
    gpt2 = ModelConfig(architecture="gpt2", d_model=96).decoder_config(300, 64)
    assert (gpt2.d_ff, gpt2.positions, gpt2.norm, gpt2.bias) == (384, "learned", "layer", True)
    llama = ModelConfig(architecture="llama", d_model=96).decoder_config(300, 64)
    assert (llama.d_ff, llama.qk_norm) == (256, False)
    bert = ModelConfig(architecture="bert", d_model=96).config(300, 64)
    assert isinstance(bert, EncoderConfig)
    assert (bert.n_heads, bert.d_ff, bert.max_seq_len) == (3, 384, 64)
    t5 = ModelConfig(architecture="t5", d_model=96, n_layers=2).config(300, 64)
    assert isinstance(t5, EncoderDecoderConfig)
    assert (t5.n_decoder_layers, t5.head_dim, t5.d_ff) == (2, 32, 384)


def test_a_mixture_is_as_wide_per_token_as_its_dense_twin():
    experts = ModelConfig(architecture="qwen3-moe", d_model=96).decoder_config(300, 64).experts
    assert (experts.n_experts, experts.top_k, experts.d_expert) == (8, 2, 128)
    mixtral = ModelConfig(architecture="llama", n_experts=4, d_expert=96).decoder_config(300, 64)
    assert (mixtral.experts.n_experts, mixtral.d_ff) == (4, 96)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_the_published_shape(name):
    config = PRESETS[name].config
    found = ModelConfig(preset=name).config(config.vocab_size, config.max_seq_len)
    assert found == config
    assert ModelConfig(preset=name).problems() == []


def test_parts_of_a_preset_are_changed_and_what_depends_on_them_scaled():
    small = ModelConfig(preset="llama-3-8b", d_model=512, n_layers=3).decoder_config(1000, 128)
    assert (small.n_heads, small.n_kv_heads, small.d_ff, small.head_dim) == (4, 4, 1792, 128)
    assert (small.n_layers, small.vocab_size, small.max_seq_len) == (3, 1000, 128)
    assert (small.rope_theta, small.tie_embeddings) == (5e5, False)
    moe = ModelConfig(preset="qwen3-30b-a3b", d_model=256).decoder_config(1000, 128)
    assert (moe.experts.n_experts, moe.experts.top_k, moe.experts.d_expert) == (128, 8, 96)
    windowed = ModelConfig(preset="mistral-7b", window=100, head_dim=64).decoder_config(1000, 128)
    assert (windowed.window, windowed.n_heads) == (100, 64)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"d_model": 33}, "model.d_model = 33 is not a multiple of 32"),
        ({"d_model": 0}, "model.d_model = 0"),
        ({"n_layers": 0}, "model.n_layers = 0 must be at least 1"),
        ({"head_dim": 48}, "give model.n_heads"),
        ({"window": 0}, "model.window = 0"),
        ({"n_shared_experts": 1}, "model.n_shared_experts is not a part of qwen3"),
        ({"architecture": "gpt2", "rope_theta": 1e5}, "model.rope_theta is not a part of gpt2"),
        ({"architecture": "bert", "window": 5}, "model.window is not a part of bert"),
        ({"architecture": "t5", "n_kv_heads": 2}, "model.n_kv_heads is not a part of t5"),
        ({"n_decoder_layers": 2}, "model.n_decoder_layers is not a part of qwen3"),
        ({"architecture": "llama", "preset": "gpt2"}, "gpt2 is gpt2"),
        ({"preset": "gpt5"}, "no model preset 'gpt5'"),
        ({"architecture": "qwen3-moe", "experts_per_token": 9}, "top_k = 9 is more than"),
        ({"n_heads": 4, "n_kv_heads": 3}, "not a multiple of n_kv_heads = 3"),
        ({"architecture": "qwen3-moe", "z_loss": -1.0}, "z_coefficient = -1.0"),
    ],
)
def test_what_cannot_be_is_named(keys: dict[str, Any], message: str):
    assert any(message in problem for problem in ModelConfig(**keys).problems())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"arquitecture": "gpt2"}, "unknown key `arquitecture`"),
        ({"architecture": "gpt4"}, "`architecture` must be"),
        ({"positions": "alibis"}, 'Did you mean "alibi"'),
    ],
)
def test_unknown_keys_and_values_are_named(keys: dict[str, Any], message: str):
    with pytest.raises(RecipeError) as caught:
        from_dict(ModelConfig, keys, "recipe")
    assert message in str(caught.value)


def test_what_is_no_decoder_is_no_decoder():
    with pytest.raises(RecipeError, match="bert is no decoder"):
        ModelConfig(preset="bert-base").decoder_config(100, 32)
    assert isinstance(ModelConfig(preset="gopher-280b").decoder_config(100, 32), DecoderConfig)
