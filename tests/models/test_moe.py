"""Mixtures of experts: no token dropped, losses as published, use told as it is."""

from __future__ import annotations

import math

import pytest
import torch

from isoflop.models import moe
from isoflop.models.config import ExpertsConfig
from isoflop.models.moe import (
    MixtureOfExperts,
    Routing,
    auxiliary_loss,
    balance_loss,
    count_assigned,
    expert_use,
    grouped_product,
    z_loss,
)

EXPERTS = ExpertsConfig(n_experts=6, top_k=2, d_expert=16)


def _mixture(experts: ExpertsConfig = EXPERTS, seed: int = 0) -> MixtureOfExperts:
    mixture = MixtureOfExperts(32, experts)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.normal_(0.0, 0.3, generator=draw)
    return mixture


def _states(rows: int = 3, length: int = 10, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, length, 32, generator=torch.Generator().manual_seed(seed))


def test_losses_equal_those_of_transformers_for_one_layer_and_one_window():
    pytest.importorskip("transformers")
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    mixture, x = _mixture(), _states(rows=1)
    _, routing = mixture(x)
    logits = x[0] @ mixture.gate.weight.t()
    theirs = load_balancing_loss_func((logits,), num_experts=6, top_k=2)
    torch.testing.assert_close(balance_loss([routing]), 10 * theirs)
    torch.testing.assert_close(z_loss([routing]), logits.logsumexp(-1).square().sum())


def test_a_balanced_router_costs_top_k_per_token_and_a_collapsed_one_more():
    even = Routing(torch.full((2, 4), 5.0), torch.full((2, 4), 2.5), torch.zeros(2))
    assert balance_loss([even]).item() == pytest.approx(2 * 10 * 2)
    one = Routing(
        torch.tensor([[10.0, 10.0, 0, 0]]), torch.tensor([[5.0, 5.0, 0, 0]]), torch.zeros(1)
    )
    assert balance_loss([one]).item() == pytest.approx(10 * 4)


def test_losses_add_up_over_batches_of_any_size():
    mixture, x = _mixture(), _states(rows=6)
    _, whole = mixture(x)
    parts = [mixture(part)[1] for part in x.split([1, 2, 3])]
    one_by_one = sum(auxiliary_loss([part], EXPERTS) for part in parts)
    torch.testing.assert_close(auxiliary_loss([whole], EXPERTS), one_by_one)


def test_the_balance_loss_moves_probability_from_the_fullest_expert():
    mixture, x = _mixture(), _states() + 0.5
    with torch.no_grad():
        mixture.gate.weight[0] += 0.2  # along what all tokens share
    optimizer = torch.optim.SGD([mixture.gate.weight], lr=0.02)
    before = expert_use(count_assigned([mixture(x)[1]]))
    for _ in range(200):
        optimizer.zero_grad()
        balance_loss([mixture(x)[1]]).backward()
        optimizer.step()
    after = expert_use(count_assigned([mixture(x)[1]]))
    assert after.largest_share < 1.5 < 2 < before.largest_share
    assert after.entropy > before.entropy


def test_the_z_loss_has_the_gradient_of_its_definition():
    mixture, x = _mixture(), _states()
    z_loss([mixture(x)[1]]).backward()
    weight = mixture.gate.weight.detach().double().requires_grad_()
    (x.double() @ weight.t()).exp().sum(-1).log().square().sum().backward()
    torch.testing.assert_close(mixture.gate.weight.grad.double(), weight.grad, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_no_token_is_dropped_when_all_go_to_one_expert():
    mixture = _mixture(ExpertsConfig(n_experts=4, top_k=1, d_expert=16))
    x = _states().abs()
    mixture.gate.weight.zero_()
    mixture.gate.weight[2] = 1.0
    out, routing = mixture(x)
    assert routing.assigned_BE.sum(0).tolist() == [0, 0, 30, 0]
    gate, up, down = (
        getattr(mixture.experts, f"{part}_proj")[2] for part in ("gate", "up", "down")
    )
    expected = (torch.nn.functional.silu(x @ gate.t()) * (x @ up.t())) @ down.t()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("counts", [[3, 0, 9], [0, 0, 12], [12, 0, 0], [4, 4, 4]])
@pytest.mark.parametrize("widths", [(16, 24), (7, 5)], ids=["aligned", "odd"])
def test_grouped_products_and_their_gradients_are_those_of_a_loop_in_float64(counts, widths):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(12, widths[0], generator=draw, requires_grad=True)
    w = torch.randn(3, widths[1], widths[0], generator=draw, requires_grad=True)
    towards = torch.randn(12, widths[1], generator=draw)
    out = grouped_product(x, w, torch.tensor(counts))
    (out * towards).sum().backward()
    x64, w64 = (t.detach().double().requires_grad_() for t in (x, w))
    expert = torch.arange(3).repeat_interleave(torch.tensor(counts))
    expected = torch.einsum("nd,nfd->nf", x64, w64[expert])
    (expected * towards.double()).sum().backward()
    for found, true in ((out, expected), (x.grad, x64.grad), (w.grad, w64.grad)):
        torch.testing.assert_close(found.double(), true, atol=1e-5, rtol=1e-5)


def test_the_kernel_and_the_loop_give_the_same(monkeypatch):
    mixture, x = _mixture(), _states()
    kernel, _ = mixture(x)
    monkeypatch.setattr(moe, "ALIGNED_BYTES", 10**9)
    loop, _ = mixture(x)
    torch.testing.assert_close(kernel, loop, atol=1e-6, rtol=0)


def test_use_counts_unused_experts_and_the_worst_layer():
    use = expert_use(torch.tensor([[5, 5, 5, 5], [20, 0, 0, 0]]))
    assert (use.unused, use.largest_share, use.entropy) == (3, 4.0, 0.0)
    even = expert_use(torch.tensor([[5, 5, 5, 5]]))
    assert (even.unused, even.largest_share) == (0, 1.0)
    assert even.entropy == pytest.approx(1.0)
    half = expert_use(torch.tensor([[8, 8, 0, 0]]))
    assert half.entropy == pytest.approx(math.log(2) / math.log(4))


def test_choices_are_counted_window_by_window():
    mixture, x = _mixture(), _states()
    _, routing = mixture(x)
    assert routing.assigned_BE.sum(1).tolist() == [20.0] * 3
    torch.testing.assert_close(routing.probability_BE.sum(1), torch.full((3,), 10.0))
    top = (x @ mixture.gate.weight.t()).topk(2).indices
    for row in range(3):
        counted = torch.bincount(top[row].flatten(), minlength=6)
        assert routing.assigned_BE[row].tolist() == counted.tolist()
    assert not routing.assigned_BE.requires_grad
