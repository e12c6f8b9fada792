"""What is computed again has the same bits, and less of it is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isoflop.models.decoder import Block, Decoder
from isoflop.models.memory import memory_bytes
from isoflop.models.moe import auxiliary_loss
from isoflop.models.recompute import plan_recompute
from isoflop.training.execution import layers_recomputed
from isoflop.training.recipe import TrainConfig

SEQ_LEN, ROWS = 32, 2


def _set(model: Decoder, what: str) -> None:
    for block in model.layers:
        assert isinstance(block, Block)
        block.recompute = what  # type: ignore[assignment]


def _pass(model: Decoder) -> tuple[Tensor, list[Tensor]]:
    ids = torch.arange(ROWS * SEQ_LEN).view(ROWS, SEQ_LEN) % 97
    document = torch.zeros_like(ids)
    document[1, 20:] = 1
    model.zero_grad()
    hidden, routing = model.routed(ids, document)
    loss = (hidden * torch.linspace(-1, 1, hidden.shape[-1])).square().sum()
    if model.config.experts is not None:
        loss = loss + auxiliary_loss(routing, model.config.experts)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("what", ["attention", "block"])
def test_losses_and_gradients_keep_their_bits(any_form: Decoder, what: str) -> None:
    loss, gradients = _pass(any_form)
    _set(any_form, what)
    again, same = _pass(any_form)
    assert torch.equal(loss, again)
    assert len(gradients) == len(same) > 0
    assert all(torch.equal(a, b) for a, b in zip(gradients, same, strict=True))


def _kept_bytes(model: Decoder) -> int:
    """Bytes alive after the forward pass beyond weights: kept for the backward pass."""
    kept: dict[int, Tensor] = {}
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor
        return tensor

    ids = torch.zeros(ROWS, SEQ_LEN, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(ids, (torch.arange(SEQ_LEN) // 9).expand(ROWS, -1).contiguous())
    assert hidden.requires_grad
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def test_less_is_kept_the_more_is_computed_again(decoder_of: Callable[..., Decoder]) -> None:
    model, found = decoder_of(n_layers=4), []
    for what in ("none", "attention", "block"):
        _set(model, what)
        found.append(_kept_bytes(model))
    assert found[0] > found[1] > found[2]


def test_foretold_activations_fall_in_the_same_order(decoder_of: Callable[..., Decoder]) -> None:
    config = decoder_of(n_layers=4).config
    none, attention, block = (
        memory_bytes(
            config, micro_batch_tokens=ROWS * SEQ_LEN, seq_len=SEQ_LEN, recompute=[what] * 4
        ).activations
        for what in ("none", "attention", "block")
    )
    assert none > attention > block


def test_generation_and_evaluation_compute_nothing_again(
    decoder_of: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = decoder_of()
    _set(model, "block")
    monkeypatch.setattr("isoflop.models.recompute.checkpoint", None)
    with torch.no_grad():
        model(torch.zeros(1, SEQ_LEN, dtype=torch.long))


def test_a_budget_recomputes_as_few_layers_as_fit_it(decoder_of: Callable[..., Decoder]) -> None:
    model = decoder_of(n_layers=4)

    def foretold(first: int) -> int:
        plan = ["block"] * first + ["none"] * (4 - first)
        return memory_bytes(
            model.config, micro_batch_tokens=64, seq_len=SEQ_LEN, recompute=plan
        ).activations

    for first in (0, 2, 3):
        train = TrainConfig(
            recompute="selective", activation_bytes=foretold(first),
            micro_batch_tokens=64, seq_len=SEQ_LEN,
        )  # fmt: skip
        assert layers_recomputed(model, train).count("block") == first


def test_modes_are_those_of_the_recipe() -> None:
    assert plan_recompute("none", 2, None, int) == ["none", "none"]
    assert plan_recompute("selective", 2, None, int) == ["attention", "attention"]
    assert plan_recompute("full", 2, None, int) == ["block", "block"]
    assert plan_recompute("selective", 2, 0, lambda first: 9) == ["block", "block"], "all it can"
