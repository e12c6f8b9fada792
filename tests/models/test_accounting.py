"""Counting formulas against counting the real thing."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from isoflop.models import config as config_module
from isoflop.models import fused, moe
from isoflop.models.accounting import (
    ParameterCount,
    count_parameters,
    flops_6n,
    flops_per_pair,
    flops_per_token,
    kv_bytes_per_token,
)
from isoflop.models.build import AnyModel
from isoflop.models.layers import KVCache
from isoflop.models.native import calls

SEQ_LEN, ROWS = 32, 2
TOKENS = SEQ_LEN * ROWS


def _roles(model: AnyModel) -> dict[str, int]:
    roles = [field.name for field in fields(ParameterCount)]
    found = dict.fromkeys(roles, 0)
    tied = getattr(model.config, "tie_embeddings", True)
    for name, parameter in model.named_parameters():
        if name == "embed_tokens.weight":
            role = "output" if tied else "input_embedding"
        elif "embed_norm" not in name and name.startswith("embed_"):
            role = "position_embedding"
        elif "norm" in name:
            role = "norm"
        elif name.startswith(("lm_head", "token_head", "pooler", "pair_head")):
            role = "output"
        else:
            role = "feed_forward" if ".mlp." in name else "attention"
        found[role] += parameter.numel()
    experts = getattr(model.config, "experts", None)
    if experts is not None:
        routed = [p for name, p in model.named_parameters() if ".mlp.experts." in name]
        found["inactive"] = sum(p[0].numel() * (experts.n_experts - experts.top_k) for p in routed)
    return found


def test_parameters_by_role_are_those_of_the_module(any_form):
    assert vars(count_parameters(any_form.config)) == _roles(any_form)


def test_parameters_of_every_shape_are_those_of_the_module(any_decoder):
    assert vars(count_parameters(any_decoder.config)) == _roles(any_decoder)


def test_parameters_of_encoders_and_encoder_decoders_too(encoder_of, t5_of):
    for model in (
        encoder_of(), encoder_of(pair_head=False, n_types=3), t5_of(),
        t5_of(activation="geglu", tie_embeddings=False),
    ):  # fmt: skip
        assert vars(count_parameters(model.config)) == _roles(model)


def test_params_leaves_out_embeddings_of_tokens_and_positions_only(any_form):
    count, config = count_parameters(any_form.config), any_form.config
    total = sum(parameter.numel() for parameter in any_form.parameters())
    lookup = 0 if config.tie_embeddings else any_form.embed_tokens.weight.numel()
    places = config.max_seq_len * config.d_model if config.positions == "learned" else 0
    assert count.params_total == total
    assert count.params == total - lookup - places
    assert count.non_embedding == count.params - config.vocab_size * config.d_model
    assert flops_6n(config) == 6 * (count.params - count.inactive)


def _counted(model: AnyModel, *, backward: bool) -> int:
    ids = torch.zeros(ROWS, SEQ_LEN, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = model(ids)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.fixture(params=["fused", "plain"])
def form(request, monkeypatch):
    """The fast CPU forms, with the products FlopCounterMode knows; and the plain ones."""
    monkeypatch.setattr(fused, "_ONEDNN", None)
    if request.param == "plain":
        monkeypatch.setattr(config_module, "LONGEST_FUSED", 0)
    with calls.plain_torch():
        yield request.param


@pytest.mark.parametrize("form", ["plain"], indirect=True)
def test_projections_feed_forward_and_output_flops_are_those_torch_counts(form, any_decoder):
    # torch's own CPU attention is unknown to FlopCounterMode, which counts 0 for it.
    flops = flops_per_token(any_decoder.config, SEQ_LEN)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        forward = _counted(any_decoder, backward=False)
        training = _counted(any_decoder, backward=True)
    linear = flops.forward - flops.attention_scores
    assert forward == TOKENS * linear
    assert training == TOKENS * 3 * linear


def test_attention_flops_are_half_of_the_whole_square_that_a_block_computes(form, any_decoder):
    # Plain attention, and a block of the fused one, multiplies the masked half too and
    # FlopCounterMode rightly counts it; the model needs the lower half only.
    flops = flops_per_token(any_decoder.config, SEQ_LEN)
    with sdpa_kernel(SDPBackend.MATH):
        forward = _counted(any_decoder, backward=False)
        training = _counted(any_decoder, backward=True)
    assert forward == TOKENS * (flops.forward + flops.attention_scores)
    assert training == TOKENS * (flops.training + 3 * flops.attention_scores)


@pytest.mark.parametrize("form", ["plain"], indirect=True)
def test_flops_of_every_form_are_those_torch_counts(form, any_form, monkeypatch):
    # Every position a token of its own, so that no expert's product is counted apart.
    monkeypatch.setattr(moe, "ALIGNED_BYTES", 10**9)
    config = any_form.config
    flops = flops_per_token(config, SEQ_LEN)
    with sdpa_kernel(SDPBackend.MATH):
        counted = _counted(any_form, backward=False)
    # A plain kernel multiplies the whole square.
    square = 4 * config.n_layers * SEQ_LEN * config.n_heads * config.head_dim
    if config.positions == "relative":
        # Distances are projected once for the batch; here once a sequence, as for a token.
        projected = 2 * config.n_layers * config.d_model * config.n_heads * config.head_dim
        square = square * 3 // 2 - projected // ROWS
    expected = flops.forward - flops.attention_scores + square
    assert counted == TOKENS * expected


def test_a_window_saves_what_lies_before_it(config_of):
    # Token t (from 1) has min(t, w) keys; the formula leaves out the half key of the diagonal.
    for window in (5, 12, 31):
        counted = flops_per_token(config_of(window=window), SEQ_LEN).attention_scores
        keys = sum(min(t - 0.5, window) for t in range(1, SEQ_LEN + 1)) / SEQ_LEN
        assert counted == pytest.approx(4 * 2 * 32 * keys, rel=0.02)
    assert flops_per_token(config_of(window=32), 32) == flops_per_token(config_of(), 32)


@pytest.mark.parametrize("form", ["plain"], indirect=True)
def test_flops_of_an_encoder_are_those_torch_counts(form, encoder_of):
    encoder = encoder_of(pair_head=False)
    with sdpa_kernel(SDPBackend.MATH):
        assert _counted(encoder, backward=False) == (
            TOKENS * flops_per_token(encoder.config, SEQ_LEN).forward
        )


@pytest.mark.parametrize("changes", [{}, {"activation": "geglu", "tie_embeddings": False}])
def test_flops_of_a_pair_are_those_torch_counts(changes, t5_of):
    model, source, target = t5_of(**changes), 24, 16
    ids = (torch.zeros(ROWS, n, dtype=torch.long) for n in (source, target))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*ids)
    flops, config = flops_per_pair(model.config, source, target), model.config
    hidden_half = 4 * config.n_decoder_layers * config.n_heads * config.head_dim * target**2 // 2
    assert counter.get_total_flops() == ROWS * (flops.forward + hidden_half)


def test_cache_bytes_per_token_are_those_of_the_cache(any_form):
    cache = KVCache(any_form.config.n_layers)
    with torch.no_grad():
        any_form(torch.zeros(1, 5, dtype=torch.long), cache=cache)
    held = sum(t.nbytes for pair in cache._layers if pair is not None for t in pair)
    assert held == 5 * kv_bytes_per_token(any_form.config)
    assert kv_bytes_per_token(any_form.config, 2) * 2 == kv_bytes_per_token(any_form.config)


def test_a_pair_keeps_keys_and_values_of_both_sides(t5_of, encoder_of):
    model = t5_of()
    source = model.decoder.source(torch.zeros(1, 7, 32))
    assert sum(t.nbytes for pair in source for t in pair) == 7 * kv_bytes_per_token(model.config)
    cache = KVCache(model.config.n_decoder_layers)
    with torch.no_grad():
        model.decode(torch.zeros(1, 5, dtype=torch.long), source, cache)
    held = sum(t.nbytes for pair in cache._layers if pair is not None for t in pair)
    assert held == 5 * kv_bytes_per_token(model.config)
    assert kv_bytes_per_token(encoder_of().config) == 0
