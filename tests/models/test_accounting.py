"""Counting formulas against counting the real thing."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from isoflop.models import accounting, fused
from isoflop.models import config as config_module
from isoflop.models.accounting import (
    FLOAT32_BYTES,
    count_parameters,
    flops_per_token,
    kv_bytes_per_token,
    memory_bytes,
)
from isoflop.models.decoder import Decoder
from isoflop.models.layers import KVCache

SEQ_LEN, ROWS = 32, 2
TOKENS = SEQ_LEN * ROWS


def _roles(decoder: Decoder) -> dict[str, int]:
    found = dict.fromkeys(("input_embedding", "attention", "feed_forward", "norm", "output"), 0)
    for name, parameter in decoder.named_parameters():
        if name == "embed_tokens.weight":
            role = "output" if decoder.config.tie_embeddings else "input_embedding"
        elif name == "lm_head.weight":
            role = "output"
        elif "norm" in name:
            role = "norm"
        else:
            role = "attention" if "self_attn" in name else "feed_forward"
        found[role] += parameter.numel()
    return found


def test_parameters_by_role_are_those_of_the_module(any_decoder):
    assert vars(count_parameters(any_decoder.config)) == _roles(any_decoder)


def test_params_leaves_out_input_embeddings_only(any_decoder):
    count = count_parameters(any_decoder.config)
    total = sum(parameter.numel() for parameter in any_decoder.parameters())
    lookup = any_decoder.embed_tokens.weight.numel()
    assert count.params_total == total
    assert count.params == total - (0 if any_decoder.config.tie_embeddings else lookup)


def _counted(decoder: Decoder, *, backward: bool) -> int:
    ids = torch.zeros(ROWS, SEQ_LEN, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = decoder(ids)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.fixture(params=["fused", "plain"])
def form(request, monkeypatch):
    """The fast CPU forms, with the products FlopCounterMode knows; and the plain ones."""
    monkeypatch.setattr(fused, "_ONEDNN", None)
    if request.param == "plain":
        monkeypatch.setattr(config_module, "LONGEST_FUSED", 0)
        monkeypatch.setattr(accounting, "LONGEST_FUSED", 0)
    return request.param


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


def _saved_bytes(decoder: Decoder, n_documents: int) -> int:
    """Bytes that a forward pass up to the loss keeps for the backward pass, weights aside."""
    ids = torch.zeros(ROWS, SEQ_LEN, dtype=torch.long)
    document = torch.arange(SEQ_LEN).mul(n_documents).div(SEQ_LEN, rounding_mode="floor")
    document_BT = document.expand(ROWS, -1).contiguous()
    own = {t.untyped_storage().data_ptr() for t in (*decoder.parameters(), *decoder.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own:
            kept[storage] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = decoder.hidden(ids, document_BT)
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_activations_of_packed_documents_are_foretold_to_one_percent(form, any_decoder):
    foretold = memory_bytes(
        any_decoder.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN
    ).activations
    assert foretold == pytest.approx(_saved_bytes(any_decoder, n_documents=3), rel=0.01)


def test_activations_of_whole_documents_are_at_most_those_foretold_and_within_a_tenth(
    form, any_decoder
):
    foretold = memory_bytes(
        any_decoder.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN
    ).activations
    assert 0.9 * foretold <= _saved_bytes(any_decoder, n_documents=1) <= foretold


def test_weights_gradients_and_moments_are_those_of_adamw(any_decoder):
    optimizer = torch.optim.AdamW(any_decoder.parameters(), fused=True)
    any_decoder(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    optimizer.step()
    moments = sum(
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    memory = memory_bytes(any_decoder.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN)
    assert memory.parameters == sum(p.nbytes for p in any_decoder.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in any_decoder.parameters())
    assert memory.optimizer == moments
    parts = (memory.parameters, memory.gradients, memory.optimizer, memory.activations, memory.loss)
    assert memory.total == sum(parts)


def test_logits_are_counted_for_one_chunk_only(config_of):
    config = config_of(vocab_size=1000)
    small, large = (
        memory_bytes(config, micro_batch_tokens=tokens, seq_len=32, loss_chunk_tokens=512).loss
        for tokens in (512, 4096)
    )
    assert large - small == FLOAT32_BYTES * 2 * (4096 - 512) * config.d_model


def test_cache_bytes_per_token_are_those_of_the_cache(any_decoder):
    cache = KVCache(any_decoder.config.n_layers)
    with torch.no_grad():
        any_decoder(torch.zeros(1, 5, dtype=torch.long), cache=cache)
    held = sum(t.nbytes for pair in cache._layers if pair is not None for t in pair)
    assert held == 5 * kv_bytes_per_token(any_decoder.config)
    assert kv_bytes_per_token(any_decoder.config, 2) * 2 == kv_bytes_per_token(any_decoder.config)
