"""The DPO family against its fixed points, solved to float64 precision on small tables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from isoflop.alignment.preference import (
    PairLogprobs,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    simpo_loss,
)

N = 8
BETA = 0.5


def table(seed: int = 0) -> tuple[Tensor, Tensor]:
    """(log π_ref, rewards) of N one-token answers."""
    draw = torch.Generator().manual_seed(seed)
    reference = torch.randn(N, generator=draw, dtype=torch.float64).log_softmax(0)
    return reference, torch.randn(N, generator=draw, dtype=torch.float64)


def solve(loss: Callable[[Tensor], Tensor], size: int = N, start: Tensor | None = None) -> Tensor:
    """log π that minimises a loss of it."""
    logits = torch.zeros(size, dtype=torch.float64) if start is None else start.clone()
    logits.requires_grad_()
    search = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        value = loss(logits.log_softmax(0))
        value.backward()
        return value

    search.step(closure)
    return logits.detach().log_softmax(0)


def pairs_of(policy: Tensor, reference: Tensor, i: Tensor, j: Tensor) -> PairLogprobs:
    return PairLogprobs(policy[i], policy[j], reference[i], reference[j])


def all_pairs() -> tuple[Tensor, Tensor]:
    first, second = np.triu_indices(N, 1)
    return torch.from_numpy(first), torch.from_numpy(second)


def test_dpo_on_all_pairs_ends_at_the_optimum_of_reward_less_divergence() -> None:
    reference, reward = table()
    i, j = all_pairs()
    wrong = torch.sigmoid(reward[j] - reward[i])  # Bradley–Terry: j is preferred so often
    found = solve(lambda policy: dpo_loss(pairs_of(policy, reference, i, j), BETA, wrong))
    margin = BETA * pairs_of(found, reference, i, j).ratio_B()
    torch.testing.assert_close(margin, reward[i] - reward[j], rtol=0, atol=1e-6)
    optimum = (reference + reward / BETA).log_softmax(0)
    torch.testing.assert_close(found, optimum, rtol=0, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_label_smoothing_ends_at_a_margin_of_its_log_odds(smoothing: float) -> None:
    reference, _ = table(1)
    i, j = torch.tensor([0]), torch.tensor([1])
    found = solve(lambda policy: dpo_loss(pairs_of(policy, reference, i, j), BETA, smoothing))
    ratio = pairs_of(found, reference, i, j).ratio_B().item()
    assert ratio == pytest.approx(math.log((1 - smoothing) / smoothing) / BETA, abs=1e-6)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_ipo_ends_at_one_over_two_tau(tau: float) -> None:
    reference, _ = table(2)
    i, j = torch.tensor([3]), torch.tensor([5])
    found = solve(lambda policy: ipo_loss(pairs_of(policy, reference, i, j), tau))
    ratio = pairs_of(found, reference, i, j).ratio_B().item()
    assert ratio == pytest.approx(1 / (2 * tau), abs=1e-6)


def test_the_hinge_lets_go_of_a_pair_at_a_margin_of_one() -> None:
    reference, _ = table(3)
    i, j = torch.tensor([0]), torch.tensor([1])
    for margin, pulls in ((0.99, True), (1.01, False)):
        policy = reference.clone()
        policy[0] += margin / BETA
        policy.requires_grad_()
        hinge_loss(pairs_of(policy, reference, i, j), BETA).backward()
        assert (policy.grad.abs().sum().item() > 0) == pulls


def test_simpo_compares_means_over_tokens_not_sums() -> None:
    chosen, rejected = torch.tensor([-10.0]), torch.tensor([-6.0])
    lengths = torch.tensor([10.0]), torch.tensor([3.0])
    loss = simpo_loss(chosen, rejected, lengths, beta=2.0, gamma=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-(2.0 * (-1.0 + 2.0) - 0.5))))


def test_kto_is_its_equation_and_pulls_each_kind_its_own_way() -> None:
    logprobs = torch.tensor([-2.0, -3.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-2.5, -2.0], dtype=torch.float64)
    desirable = torch.tensor([True, False])
    loss = kto_loss(logprobs, reference, desirable, torch.tensor(0.2), 0.5, (1.5, 0.5))
    sigmoid = [1 / (1 + math.exp(-x)) for x in (0.5 * (0.5 - 0.2), -0.5 * (-1.0 - 0.2))]
    expected = (1.5 * (1 - sigmoid[0]) + 0.5 * (1 - sigmoid[1])) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert logprobs.grad is not None
    assert (logprobs.grad[0] < 0).item()
    assert (logprobs.grad[1] > 0).item()
    below = kto_loss(logprobs, reference, desirable, torch.tensor(-5.0), 0.5)
    at_zero = kto_loss(logprobs, reference, desirable, torch.tensor(0.0), 0.5)
    assert below.item() == at_zero.item(), "an estimate below zero counts as zero"


def test_without_the_reference_the_optimum_would_be_another() -> None:
    """A mutant that forgets π_ref must not pass for DPO."""
    reference, reward = table()
    i, j = all_pairs()
    wrong = torch.sigmoid(reward[j] - reward[i])
    level = torch.full_like(reference, -math.log(N))
    found = solve(lambda policy: dpo_loss(pairs_of(policy, level, i, j), BETA, wrong))
    optimum = (reference + reward / BETA).log_softmax(0)
    assert (found - optimum).abs().max() > 0.1
