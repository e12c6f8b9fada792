"""What rewards can come to, foretold from answers of the reference alone; not the training.

Shape suffixes: P prompts, K answers to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

Rewards = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A point of the frontier: no policy has more reward at this divergence."""

    beta: float
    """Weight of the divergence whose best policy lies here."""
    value: float
    """J*(β) = β·log E_ref[exp(r/β)], the most that E[r] − β·KL can be."""
    reward: float
    """E[r] of π* ∝ π_ref·exp(r/β)."""
    kl: float
    """KL(π*‖π_ref), nats per answer."""
    error: float
    """Standard error of `value` over prompts."""


def frontier(rewards_PK: Rewards, betas: Sequence[float]) -> tuple[Point, ...]:
    """The reward–KL frontier, prompt by prompt from answers of the reference, a mean over prompts.

    K answers cannot know of better ones: towards β = 0 the reward tends to the best of K and the
    divergence to at most log K, below which the estimate can be trusted.

    Args:
        rewards_PK: Rewards of the reference's own answers, drawn at the temperature of training.
        betas: Positive.

    Raises:
        ValueError: There is no answer, or a β is not positive.
    """
    if not rewards_PK.size or min(betas, default=1.0) <= 0:
        raise ValueError("a frontier needs rewards and positive weights")
    points = []
    count = rewards_PK.shape[1]
    for beta in betas:
        scaled_PK = rewards_PK / beta
        top_P1 = scaled_PK.max(1, keepdims=True)
        weight_PK = np.exp(scaled_PK - top_P1)
        value_P = beta * (np.log(weight_PK.mean(1)) + top_P1[:, 0])
        reward_P = (weight_PK * rewards_PK).sum(1) / weight_PK.sum(1)
        error = value_P.std(ddof=1) / np.sqrt(len(value_P)) if len(value_P) > 1 else 0.0
        value, reward = float(value_P.mean()), float(reward_P.mean())
        # J* = E[r] − β·KL at its own policy.
        kl = min(max((reward - value) / beta, 0.0), float(np.log(count)))
        points.append(Point(beta, value, reward, kl, float(error)))
    return tuple(points)


def best_of(rewards_PK: Rewards, k: int) -> float:
    """Mean over prompts of the greatest of k rewards, unbiased from K ≥ k of them; of rewards that
    are 0 or 1 it is pass@k (Chen et al. 2021): what learning from groups of k can at most turn into
    one.

    Raises:
        ValueError: There are fewer than k answers.
    """
    total = rewards_PK.shape[1]
    if not 1 <= k <= total:
        raise ValueError(f"k = {k} is outside 1 … {total}")
    # The i-th smallest is the greatest of so many of all sets of k.
    weight_K = np.array([comb(i, k - 1) for i in range(total)]) / comb(total, k)
    return float((np.sort(rewards_PK, axis=1) @ weight_K).mean())


def best_of_divergence(k: int) -> float:
    """KL of the best of k answers from the policy that drew them: log k − (k − 1)/k nats, where no
    two answers are worth the same (Stiennon et al. 2020); less where some are."""
    return float(np.log(k) - (k - 1) / k)


def dead_groups(rewards_PK: Rewards, group: int) -> float:
    """Share of groups of `group` answers that will all earn the same and so teach nothing,
    unbiased from K ≥ group answers.

    Raises:
        ValueError: There are fewer answers than that.
    """
    total = rewards_PK.shape[1]
    if not 1 <= group <= total:
        raise ValueError(f"group = {group} is outside 1 … {total}")
    shares = []
    for rewards_K in rewards_PK:
        _, counts = np.unique(rewards_K, return_counts=True)
        shares.append(sum(comb(int(n), group) for n in counts) / comb(total, group))
    return float(np.mean(shares))
