"""Losses of policy-gradient training (PPO, GRPO, RLOO) as pure functions; not the rollouts.

The objective behind them all is J(π) = E_π[r] − β·KL(π‖π_ref), whose optimum is
π* ∝ π_ref·exp(r/β) with J* = β·log E_ref[exp(r/β)].

Shape suffixes: B answers, T tokens of an answer, G answers to one prompt, P prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# --- divergence from the reference ----------------------------------------------------------


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log(π/π_ref) of sampled tokens: unbiased for KL(π‖π_ref), of high variance.

    Its place is inside the reward, where the policy gradient makes it the objective's own term. As
    a loss its gradient is that of an expectation of zero: it does nothing but add noise.
    """
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """½·log²(π/π_ref) of sampled tokens (Schulman 2020).

    As a loss on the policy's own samples its gradient is, in expectation, that of KL(π‖π_ref): it
    leads to π*.
    """
    return 0.5 * (logprobs - reference).square()


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """π_ref/π − 1 − log(π_ref/π) of sampled tokens: unbiased, never negative (Schulman 2020).

    As a plain loss, as GRPO was published with (Shao et al. 2024), its gradient on the policy's
    own samples is that of KL(π_ref‖π), the other divergence, with another optimum. Times the
    differentiable ratio π/π_sampler it leads to π*.
    """
    log_ratio = reference - logprobs
    return torch.expm1(log_ratio) - log_ratio


# --- advantages -----------------------------------------------------------------------------


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2016): A_t = Σ_l (γλ)^l·δ_{t+l}.

    δ_t = r_t + γ·V_{t+1} − V_t, with V = 0 after an answer's last token.

    Args:
        mask_BT: Booleans, true on the answer's tokens; each row's true part is one stretch.

    Returns:
        (advantages, returns = advantages + values), 0 where masked.
    """
    advantages_BT = torch.zeros_like(rewards_BT)
    next_value_B = torch.zeros_like(rewards_BT[:, 0])
    running_B = torch.zeros_like(next_value_B)
    for t in range(rewards_BT.shape[1] - 1, -1, -1):
        here_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        running_B = torch.where(here_B, delta_B + gamma * lam * running_B, 0.0)
        next_value_B = torch.where(here_B, values_BT[:, t], 0.0)
        advantages_BT[:, t] = running_B
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Values with mean 0 and variance 1 over the masked positions of the whole batch; 0 outside."""
    inside = values_BT[mask_BT]
    centred_BT = (values_BT - inside.mean()) / (inside.std(unbiased=False) + 1e-8)
    return torch.where(mask_BT, centred_BT, 0.0)


def group_advantages(rewards_PG: Tensor, divide_by_std: bool = False) -> Tensor:
    """Rewards less the mean of their group (GRPO, Shao et al. 2024).

    Args:
        divide_by_std: As published. It weighs prompts by the inverse of their spread, so that the
            optimum is no longer that of J: nearly solved and nearly hopeless prompts count most
            (Liu et al. 2025, "Dr. GRPO").
    """
    centred_PG = rewards_PG - rewards_PG.mean(-1, keepdim=True)
    if divide_by_std:
        centred_PG = centred_PG / (rewards_PG.std(-1, keepdim=True) + 1e-4)
    return centred_PG


def leave_one_out_advantages(rewards_PG: Tensor) -> Tensor:
    """Each reward less the mean of its group's others: an unbiased baseline (RLOO, Ahmadian et al.
    2024). It is G/(G − 1) times `group_advantages`."""
    group = rewards_PG.shape[-1]
    return (rewards_PG - rewards_PG.mean(-1, keepdim=True)) * (group / (group - 1))


# --- losses ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clipping:
    """The trust region of a step, as a range of π/π_old."""

    low: float = 0.2
    """The ratio is not rewarded for falling below 1 − low."""
    high: float = 0.2
    """Nor for rising above 1 + high; larger than `low`, rare tokens may still grow ("clip-higher",
    Yu et al. 2025)."""


@dataclass(frozen=True)
class PolicyLoss:
    """A summed loss and what happened in it."""

    loss_sum: Tensor
    """Over the masked tokens; to be divided by the count of the whole optimizer step."""
    clipped: float
    """Share of tokens whose gradient the clipping cut off."""
    approximate_kl: float
    """Mean of k3 between the policy and the sampler, nats per token."""


def policy_loss(
    logprobs_BT: Tensor,
    old_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    clipping: Clipping | None = None,
    sampler_BT: Tensor | None = None,
    most_correction: float = 2.0,
) -> PolicyLoss:
    """−Σ min(ρ·A, clip(ρ, 1 − low, 1 + high)·A) with ρ = π/π_old (Schulman et al. 2017).

    Summed over tokens: dividing each answer by its own length, as GRPO was published, favours
    short right answers and long wrong ones (Liu et al. 2025).

    Args:
        logprobs_BT: log π of the sampled tokens, with a gradient.
        old_BT: The same by the policy before this batch's updates.
        sampler_BT: By the program that drew the tokens, where it is another than the trainer: each
            token then weighs π_old/π_sampler, at most `most_correction` (truncated importance
            sampling).
    """
    bounds = clipping or Clipping()
    log_ratio_BT = torch.where(mask_BT, logprobs_BT - old_BT, 0.0)
    ratio_BT = log_ratio_BT.exp()
    free_BT = ratio_BT * advantages_BT
    clipped_BT = ratio_BT.clamp(1 - bounds.low, 1 + bounds.high) * advantages_BT
    loss_BT = -torch.minimum(free_BT, clipped_BT)
    if sampler_BT is not None:
        correction_BT = (old_BT - sampler_BT).exp().clamp_max(most_correction).detach()
        loss_BT = loss_BT * correction_BT
    with torch.no_grad():
        cut = (clipped_BT < free_BT)[mask_BT].double().mean().item()
        kl = k3(old_BT, logprobs_BT)[mask_BT]
        # Under the sampler's tokens k3 of (old, new) estimates KL(π_old‖π).
        drift = kl.double().mean().item()
    return PolicyLoss(torch.where(mask_BT, loss_BT, 0.0).sum(), cut, drift)


def value_loss(
    values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip: float | None
) -> Tensor:
    """½·Σ max((V − R)², (clip(V, V_old ± c) − R)²), summed over the masked tokens.

    The larger of the two, so that the clipping cannot hide an error (Schulman et al.'s code).

    Args:
        clip: c; None for the plain squared error.
    """
    error_BT = (values_BT - returns_BT).square()
    if clip is not None:
        near_BT = old_BT + (values_BT - old_BT).clamp(-clip, clip)
        error_BT = torch.maximum(error_BT, (near_BT - returns_BT).square())
    return 0.5 * torch.where(mask_BT, error_BT, 0.0).sum()


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, count: int) -> float:
    """β for the next batch: β·(1 + clip(KL/target − 1, ±0.2)·count/horizon) (Ziegler et al. 2019).

    Args:
        kl: Mean divergence of the batch per answer, nats.
        count: Answers in the batch; `horizon` in answers too.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * count / horizon)
