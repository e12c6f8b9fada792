"""Policy gradients against enumerated expectations and the closed-form optimum."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from isoflop.alignment.policy import (
    Clipping,
    adapt_kl_coef,
    gae,
    group_advantages,
    k1,
    k2,
    k3,
    leave_one_out_advantages,
    policy_loss,
    value_loss,
    whiten,
)

BETA, ACTIONS = 0.5, 80


def table(seed: int, n: int = ACTIONS) -> tuple[Tensor, Tensor]:
    """(log π_ref, rewards) of one-token answers."""
    draw = torch.Generator().manual_seed(seed)
    reference = torch.randn(n, generator=draw, dtype=torch.float64).log_softmax(0)
    return reference, torch.randn(n, generator=draw, dtype=torch.float64)


def objective(policy: Tensor, reference: Tensor, reward: Tensor) -> float:
    return (policy.exp() * (reward - BETA * (policy - reference))).sum().item()


def gradient(logits: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = logits.clone().requires_grad_()
    of(leaf.log_softmax(0)).backward()
    assert leaf.grad is not None
    return leaf.grad


# --- estimates of the divergence, as losses --------------------------------------------------


def expected_gradient(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Of a loss on samples of the policy itself: each action weighs its (constant) probability."""
    share = logits.log_softmax(0).exp()
    return gradient(logits, lambda policy: (share * loss(policy)).sum())


def test_each_estimate_optimises_what_its_docstring_says() -> None:
    reference, logits = table(0, 9)
    forward = gradient(logits, lambda p: (p.exp() * (p - reference)).sum())
    reverse = gradient(logits, lambda p: (reference.exp() * (reference - p)).sum())
    old = logits.log_softmax(0)
    found = {
        "k1": expected_gradient(logits, lambda p: k1(p, reference)),
        "k2": expected_gradient(logits, lambda p: k2(p, reference)),
        "k3": expected_gradient(logits, lambda p: k3(p, reference)),
        "k3 times ratio": expected_gradient(logits, lambda p: (p - old).exp() * k3(p, reference)),
    }
    torch.testing.assert_close(found["k1"], torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(found["k2"], forward)
    torch.testing.assert_close(found["k3"], reverse)
    torch.testing.assert_close(found["k3 times ratio"], forward)
    assert (forward - reverse).abs().max() > 0.05, "the two are not the same"


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative() -> None:
    reference, logits = table(1, 9)
    policy = logits.log_softmax(0)
    kl = (policy.exp() * (policy - reference)).sum()
    for estimate in (k1, k3):
        torch.testing.assert_close((policy.exp() * estimate(policy, reference)).sum(), kl)
    assert (k3(policy, reference) >= 0).all()


# --- advantages -------------------------------------------------------------------------------


def test_gae_is_the_double_sum() -> None:
    draw = np.random.default_rng(0)
    rewards, values = draw.normal(size=(2, 3, 7))
    lengths, gamma, lam = (7, 4, 1), 0.97, 0.9
    mask = np.arange(7) < np.array(lengths)[:, None]
    found, returns = gae(*(torch.from_numpy(x) for x in (rewards, values, mask)), gamma, lam)
    for row, length in enumerate(lengths):
        after = np.append(values[row, 1:length], 0.0)
        delta = rewards[row, :length] + gamma * after - values[row, :length]
        for t in range(length):
            expected = sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, length))
            assert found[row, t].item() == pytest.approx(expected, abs=1e-12)
            assert returns[row, t].item() == pytest.approx(expected + values[row, t], abs=1e-12)
    assert not found[~torch.from_numpy(mask)].any()


def test_a_prompt_before_the_answer_is_no_part_of_it() -> None:
    rewards = torch.tensor([[9.0, 9.0, 0.0, 1.0]])
    mask = torch.tensor([[False, False, True, True]])
    found, _ = gae(rewards, torch.zeros(1, 4), mask, 1.0, 1.0)
    assert found.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_whitening_looks_at_the_masked_positions_alone() -> None:
    values = torch.tensor([[1.0, 100.0], [3.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False], [True, True]])
    found = whiten(values, mask)
    inside = found[mask]
    assert inside.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert inside.var(unbiased=False).item() == pytest.approx(1.0, rel=1e-6)
    assert found[0, 1] == 0


def test_leave_one_out_is_each_reward_less_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)
    assert leave_one_out_advantages(rewards).tolist() == [[1 - 4.0, 2 - 3.5, 6 - 1.5]]
    torch.testing.assert_close(leave_one_out_advantages(rewards), 1.5 * group_advantages(rewards))


# --- losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "pulls"),
    [
        (1.0, 2.0, -2.0, True), (1.1, 2.0, -2.2, True), (1.5, 2.0, -2.4, False),
        (0.5, 2.0, -1.0, True), (1.5, -2.0, 3.0, True), (0.5, -2.0, 1.6, False),
        (0.9, -2.0, 1.8, True),
    ],
)  # fmt: skip
def test_the_clip_table(ratio: float, advantage: float, loss: float, pulls: bool) -> None:
    logprob = torch.tensor([[math.log(ratio) - 1]], dtype=torch.float64, requires_grad=True)
    old, mask = torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([[True]])
    found = policy_loss(logprob, old, torch.tensor([[advantage]], dtype=torch.float64), mask)
    assert found.loss_sum.item() == pytest.approx(loss)
    assert found.clipped == (0.0 if pulls else 1.0)
    found.loss_sum.backward()
    assert logprob.grad is not None
    assert (logprob.grad.abs().item() > 0) == pulls


def test_clip_higher_lets_a_rare_token_grow_further() -> None:
    logprob = torch.tensor([[math.log(1.25)]], dtype=torch.float64)
    args = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    mask = torch.tensor([[True]])
    assert policy_loss(logprob, *args, mask).clipped == 1.0
    assert policy_loss(logprob, *args, mask, Clipping(0.2, 0.28)).clipped == 0.0


def test_what_the_sampler_drew_too_often_weighs_less_up_to_a_bound() -> None:
    logprob = torch.tensor([[-1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    old, ones = logprob.detach(), torch.ones(1, 2, dtype=torch.float64)
    sampler = torch.tensor([[-0.5, -3.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True]])
    policy_loss(logprob, old, ones, mask, sampler_BT=sampler).loss_sum.backward()
    assert logprob.grad is not None
    np.testing.assert_allclose(logprob.grad[0], [-math.exp(-0.5), -2.0])


def test_clipped_values_cannot_hide_an_error() -> None:
    values, old = torch.tensor([[3.0, 3.0]]), torch.tensor([[0.0, 0.0]])
    returns, mask = torch.tensor([[5.0, 1.0]]), torch.tensor([[True, True]])
    assert value_loss(values, old, returns, mask, None).item() == 0.5 * (4 + 4)
    assert value_loss(values, old, returns, mask, 0.5).item() == 0.5 * (4.5**2 + 4)


def test_the_coefficient_follows_the_divergence_within_bounds() -> None:
    assert adapt_kl_coef(0.1, 12.0, 6.0, 1000, 50) == pytest.approx(0.1 * (1 + 0.2 * 0.05))
    assert adapt_kl_coef(0.1, 5.7, 6.0, 1000, 50) == pytest.approx(0.1 * (1 - 0.05 * 0.05))


# --- the optimum ------------------------------------------------------------------------------

Advantage = Callable[[Tensor], Tensor]


def trained(seed: int, advantages: Advantage, steps: int = 400, group: int = 1024) -> Tensor:
    """log π after steps of `policy_loss` on sampled answers, divergence in the reward (k1)."""
    reference, reward = table(seed)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        with torch.no_grad():
            old = logits.log_softmax(0)
            taken = torch.multinomial(old.exp(), group, replacement=True, generator=draw)
            scored = reward[taken] - BETA * k1(old, reference)[taken]
            gain = advantages(scored[None])[0]
        for _ in range(2):
            now = logits.log_softmax(0)[taken]
            mask = torch.ones(group, 1, dtype=torch.bool)
            loss = policy_loss(now[:, None], old[taken][:, None], gain[:, None], mask)
            optimizer.zero_grad()
            (loss.loss_sum / group).backward()
            optimizer.step()
    return logits.detach().log_softmax(0)


def ppo(scored: Tensor) -> Tensor:
    """GAE of one-token answers with a constant critic, whitened."""
    value = scored.mean().expand_as(scored).T
    mask = torch.ones_like(value, dtype=torch.bool)
    return whiten(gae(scored.T, value, mask)[0], mask).T


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", [ppo, group_advantages, leave_one_out_advantages])
def test_the_closed_form_optimum_is_reached(seed: int, method: Advantage) -> None:
    reference, reward = table(seed)
    found = trained(seed, method)
    best = BETA * torch.logsumexp(reference + reward / BETA, 0).item()
    start = objective(reference, reference, reward)
    closed = (objective(found, reference, reward) - start) / (best - start)
    optimum = (reference + reward / BETA).log_softmax(0)
    assert closed > 0.995
    assert (found.exp() * (found - optimum)).sum() < 0.01


def test_a_negated_or_shuffled_reward_does_not_reach_it() -> None:
    reference, reward = table(0)
    best = BETA * torch.logsumexp(reference + reward / BETA, 0).item()
    start = objective(reference, reference, reward)
    found = trained(0, lambda scored: -group_advantages(scored), steps=60)
    assert (objective(found, reference, reward) - start) / (best - start) < 0
