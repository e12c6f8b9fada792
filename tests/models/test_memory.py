"""Foretold bytes of training against the tensors that torch really keeps."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isoflop.models import config as config_module
from isoflop.models import fused, memory
from isoflop.models.accounting import FLOAT32_BYTES
from isoflop.models.build import AnyModel
from isoflop.models.decoder import Decoder
from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.models.memory import memory_bytes
from isoflop.models.native import calls
from isoflop.models.output_loss import linear_cross_entropy

SEQ_LEN, ROWS = 32, 2
TOKENS = SEQ_LEN * ROWS


@pytest.fixture(params=["native", "fused", "plain"])
def form(request, monkeypatch):
    """The fast CPU forms, natively and by torch, with the products FlopCounterMode knows; and the
    plain ones."""
    monkeypatch.setattr(fused, "_ONEDNN", None)
    if request.param == "native" and not calls.in_use():
        pytest.skip("no native library")
    monkeypatch.setattr(calls._Switch, "on", request.param == "native")
    if request.param == "plain":
        monkeypatch.setattr(config_module, "LONGEST_FUSED", 0)
        monkeypatch.setattr(memory, "LONGEST_FUSED", 0)
    return request.param


def _saved_bytes(model: AnyModel, n_documents: int) -> int:
    """Bytes that a forward pass up to the loss keeps for the backward pass, weights aside."""
    ids = torch.zeros(ROWS, SEQ_LEN, dtype=torch.long)
    document = torch.arange(SEQ_LEN).mul(n_documents).div(SEQ_LEN, rounding_mode="floor")
    document_BT = document.expand(ROWS, -1).contiguous()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own:
            kept[storage] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if isinstance(model, EncoderDecoder):
            hidden = model.hidden(ids, ids, document_BT, document_BT)
        else:
            hidden = model.hidden(ids, document_BT)
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_activations_of_packed_documents_are_foretold_to_one_percent(form, any_decoder):
    foretold = memory_bytes(
        any_decoder.config,
        micro_batch_tokens=TOKENS,
        seq_len=SEQ_LEN,
        native=form == "native",
    ).activations
    assert foretold == pytest.approx(_saved_bytes(any_decoder, n_documents=3), rel=0.01)


def test_activations_of_whole_documents_are_at_most_those_foretold_and_within_a_tenth(
    form, any_decoder
):
    foretold = memory_bytes(
        any_decoder.config,
        micro_batch_tokens=TOKENS,
        seq_len=SEQ_LEN,
        native=form == "native",
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


def test_activations_of_every_form_are_foretold_to_two_percent(any_form):
    foretold = memory_bytes(any_form.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN)
    assert foretold.activations == pytest.approx(_saved_bytes(any_form, n_documents=3), rel=0.02)


def test_activations_of_encoders_and_encoder_decoders_too(encoder_of, t5_of):
    for model in (encoder_of(), t5_of(), t5_of(activation="geglu", tie_embeddings=False)):
        foretold = memory_bytes(model.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN)
        assert foretold.activations == pytest.approx(_saved_bytes(model, n_documents=3), rel=0.02)


def test_activations_of_widths_that_fill_registers_are_foretold_too(config_of):
    model = Decoder(config_of(d_model=64, n_heads=2, n_kv_heads=1, head_dim=32, d_ff=96))
    foretold = memory_bytes(
        model.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN, native=calls.in_use()
    )
    assert foretold.activations == pytest.approx(_saved_bytes(model, n_documents=3), rel=0.02)
    with calls.plain_torch():
        foretold = memory_bytes(model.config, micro_batch_tokens=TOKENS, seq_len=SEQ_LEN)
        assert foretold.activations == pytest.approx(_saved_bytes(model, 3), rel=0.02)


@pytest.mark.parametrize("tokens", [64, 4096])
def test_gradients_of_a_single_micro_batch_take_the_room_of_its_activations(config_of, tokens):
    """They come as the activations go: at no time are both there."""
    config = config_of()
    several, single = (
        memory_bytes(config, micro_batch_tokens=tokens, seq_len=32, accumulates=accumulates)
        for accumulates in (True, False)
    )
    both = several.gradients + several.activations
    assert single.gradients + single.activations == max(several.gradients, several.activations)
    assert several.total - single.total == both - max(several.gradients, several.activations)
    assert single.process > single.total


def test_recomputation_leaves_the_gaps_of_the_heap(config_of):
    config = config_of(n_layers=4)
    none, block = (
        memory_bytes(config, micro_batch_tokens=4096, seq_len=32, recompute=[mode] * 4)
        for mode in ("none", "block")
    )
    assert block.activations < none.activations
    assert block.gaps == none.gaps == pytest.approx(0.15 * none.total, abs=1)


def test_forms_without_fused_attention_leave_more_gaps_among_gradients(config_of):
    plain = config_of(qk_norm=False)
    several, single = (
        memory_bytes(plain, micro_batch_tokens=4096, seq_len=32, accumulates=accumulates)
        for accumulates in (True, False)
    )
    assert several.gaps == pytest.approx(0.37 * several.total, abs=1)
    assert single.gaps < several.gaps


class _Live(TorchDispatchMode):
    """The most bytes of tensors made here that live at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self._sizes = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self._sizes.pop, storage._cdata)
        self.peak = max(self.peak, sum(self._sizes.values()))
        return out


@pytest.mark.parametrize("rows", [64, 1024], ids=["one part", "four parts"])
def test_buffers_of_the_native_output_layer_are_foretold_to_two_percent(config_of, rows):
    if not calls.in_use():
        pytest.skip("no native library")
    config = config_of(d_model=64, n_heads=2, n_kv_heads=1, head_dim=32, vocab_size=512)
    told = memory_bytes(config, micro_batch_tokens=rows, seq_len=SEQ_LEN, native=True).loss
    x_ND = torch.randn(rows, 64).requires_grad_()
    weight_VD, label_N = torch.randn(512, 64).requires_grad_(), torch.randint(512, (rows,))
    with _Live() as live:
        loss = linear_cross_entropy(x_ND, weight_VD, label_N, ignored=-100)
    assert loss.requires_grad
    # The last hidden states were there before.
    assert told == pytest.approx(live.peak + x_ND.nbytes, rel=0.02)
