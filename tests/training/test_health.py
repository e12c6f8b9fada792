"""Signs of health against planted noise and planted updates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isoflop.models import moe
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.moe import Router, Routing
from isoflop.training import pretrain
from isoflop.training.health import NoiseSums, UpdateSizes, signs
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe


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


# --- what evaluations show -----------------------------------------------------------------


def test_a_logit_beyond_the_bound_is_a_sign_and_one_within_is_not() -> None:
    assert not signs({"attention_logit_max": 100.0}, 100.0)
    (sign,) = signs({"attention_logit_max": 101.0}, 100.0)
    assert (sign.event, sign.value) == ("attention logits", 101.0)
    assert signs({"attention_logit_max": math.nan}, 100.0), "no number is no comfort"
    assert not signs({"attention_logit_max": 1e9}, 0.0), "0 is for never"


def _evaluated(tmp_path: Path, recipe: TrainRecipe) -> list[dict[str, Any]]:
    run = train(recipe, tmp_path / "run").run
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] in ("attention logits", "dead experts")]


@pytest.mark.usefixtures("calibrated")
def test_scaled_gains_of_queries_and_keys_are_flagged_in_a_run(
    train_recipe: TrainRecipe, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(model: Decoder, seed: int) -> None:
        initialise(model, seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "q_norm" in name or "k_norm" in name:
                    parameter.mul_(30.0)

    evals = [json.loads(line) for line in (whole_run / "evals.jsonl").read_text().splitlines()]
    assert all(0 < row["attention_logit_max"] < 100 for row in evals), "a healthy run is silent"
    monkeypatch.setattr(pretrain, "initialise", spoilt)
    short = replace(train_recipe, train=replace(train_recipe.train, tokens=2560, evaluations=1))
    (found,) = _evaluated(tmp_path, short)
    assert found["event"] == "attention logits"
    assert found["value"] > 100


@pytest.mark.usefixtures("calibrated")
def test_an_expert_that_its_router_starves_is_flagged_in_a_run(
    train_recipe: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Starving(Router):
        """Never chooses expert 0."""

        def forward(self, h_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Routing]:
            chosen, share, routing = super().forward(h_BTD)
            to = torch.where(chosen == 0, 1, chosen)
            assigned = torch.zeros_like(routing.assigned_BE)
            rows = to.view(len(assigned), -1)
            assigned.scatter_add_(1, rows, torch.ones_like(rows, dtype=assigned.dtype))
            return to, share, routing._replace(assigned_BE=assigned)

    model = replace(train_recipe.model, n_experts=2, experts_per_token=1)
    short = replace(
        train_recipe, model=model,
        train=replace(train_recipe.train, tokens=2560, evaluations=1),
    )  # fmt: skip
    monkeypatch.setattr(moe, "Router", Starving)
    (found,) = _evaluated(tmp_path, short)
    assert found["event"] == "dead experts"
    assert found["value"] == model.n_layers
