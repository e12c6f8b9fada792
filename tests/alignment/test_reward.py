"""Bradley–Terry scores recovered from planted ones, within what the data allow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from isoflop.alignment.reward import bradley_terry_loss


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_scores_are_recovered_within_the_chi_square_ellipsoid(seed: int) -> None:
    n, pairs = 12, 4000
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=n)
    truth -= truth.mean()
    i = draw.integers(n, size=pairs)
    j = (i + draw.integers(1, n, size=pairs)) % n
    wins = draw.random(pairs) < 1 / (1 + np.exp(truth[j] - truth[i]))
    chosen, rejected = np.where(wins, i, j), np.where(wins, j, i)
    scores = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [scores], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = bradley_terry_loss(scores[chosen], scores[rejected])
        loss.backward()
        return loss

    search.step(closure)
    off = scores.detach().numpy() - truth
    off -= off.mean()
    share = 1 / (1 + np.exp(truth[j] - truth[i]))
    row = np.zeros((pairs, n))
    row[np.arange(pairs), i], row[np.arange(pairs), j] = 1.0, -1.0
    information = (row * (share * (1 - share))[:, None]).T @ row
    assert off @ information @ off < stats.chi2.ppf(0.999, n - 1)


def test_centring_brings_the_mean_of_rewards_to_zero_without_moving_differences_far() -> None:
    scores = torch.tensor([5.0, 4.0], dtype=torch.float64, requires_grad=True)
    search = torch.optim.SGD([scores], lr=0.5)
    for _ in range(3000):
        search.zero_grad()
        bradley_terry_loss(scores[:1], scores[1:], centring=0.01).backward()
        search.step()
    assert scores.sum().item() == pytest.approx(0.0, abs=1e-6)
    assert (scores[0] - scores[1]).item() > 4


def test_a_margin_shifts_the_log_odds() -> None:
    zero, margin = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert bradley_terry_loss(zero, zero, margin).item() == pytest.approx(math.log1p(math.e))
