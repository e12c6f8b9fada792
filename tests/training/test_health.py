"""Signs of health against planted noise and planted updates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from isoflop.models.decoder import Decoder
from isoflop.training.health import NoiseSums, UpdateSizes


@pytest.mark.parametrize(("small", "large"), [(1, 8), (16, 64)])
def test_the_noise_scale_is_the_planted_one(small: int, large: int) -> None:
    """Per-token gradients are normal with mean μ and covariance diag(σ²): tr(Σ)/|μ|² is known."""
    draw = torch.Generator().manual_seed(0)
    mean = torch.linspace(0.5, 1.5, 20, dtype=torch.float64)
    sigma = torch.linspace(1.0, 4.0, 20, dtype=torch.float64)
    planted = (sigma.square().sum() / mean.square().sum()).item()
    sums = NoiseSums()
    for _ in range(3000):
        tokens = mean + sigma * torch.randn(large, 20, generator=draw, dtype=torch.float64)
        squares = [tokens[:n].mean(0).square().sum().item() for n in (small, large)]
        sums = sums.add(squares[0], small, squares[1], large)
    assert sums.scale == pytest.approx(planted, rel=0.05)


def test_without_a_positive_estimate_nothing_is_claimed() -> None:
    assert NoiseSums().scale is None
    assert NoiseSums().add(1.0, 1, 2.0, 4).scale is None, "noise cannot grow with the batch"


def test_a_planted_update_is_measured(decoder_of: Callable[..., Decoder]) -> None:
    model = decoder_of()
    before = UpdateSizes(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.05 if name.endswith("up_proj.weight") else 1.001)
    found = before.after(model)
    assert found["update_ratio"] == pytest.approx(0.001, rel=1e-3)
    assert found["update_ratio_max"] == pytest.approx(0.05, rel=1e-3)


def test_matrices_that_start_at_zero_are_left_out() -> None:
    model = nn.Linear(4, 4)
    nn.init.zeros_(model.weight)
    assert UpdateSizes(model).after(model) == {}
