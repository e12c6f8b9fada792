"""Which parameters decay and at which rate; every optimizer learns and is checkpointed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch

from isoflop.models.decoder import Decoder
from isoflop.training.checkpoint import LoopState, load_checkpoint, save_checkpoint
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import Optimizer, OptimizerConfig
from isoflop.training.optimizers import build_optimizer, set_learning_rate
from isoflop.training.scaling import Scaling


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_matrices_of_the_blocks_decay_and_norms_and_embeddings_do_not(
    decoder_of: Callable[..., Decoder], tied: bool
) -> None:
    model = decoder_of(tie_embeddings=tied)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, OptimizerConfig(weight_decay=0.3)).param_groups
    by_decay = {g["weight_decay"]: {names[p] for p in g["params"]} for g in groups}
    assert by_decay.keys() == {0.3, 0.0}
    assert by_decay[0.3] == {n for n in names.values() if n.endswith("proj.weight")}
    assert by_decay[0.0] == set(names.values()) - by_decay[0.3]
    assert {"embed_tokens.weight", "norm.weight"} <= by_decay[0.0]


def test_the_recipe_reaches_the_optimizer(decoder_of: Callable[..., Decoder]) -> None:
    config = OptimizerConfig(learning_rate=0.5, beta1=0.8, beta2=0.7, eps=1e-5)
    for group in build_optimizer(decoder_of(), config).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.7), 1e-5)
        assert group["fused"]


def test_a_group_s_rate_is_the_schedule_s_times_its_own_factor(
    decoder_of: Callable[..., Decoder],
) -> None:
    model = decoder_of()
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.3), Scaling(4.0, 2.0))
    set_learning_rate(optimizer, 0.8)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[p]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups
             for p in g["params"]}  # fmt: skip
    assert found["embed_tokens.weight"] == (0.8, 0.0)
    assert found["layers.0.mlp.up_proj.weight"] == (0.2, 1.2)
    assert found["layers.0.mlp.down_proj.weight"] == (0.1, 2.4)
    assert found["norm.weight"] == (0.2, 0.0)


@pytest.mark.parametrize("name", [n for n in get_args(Optimizer) if n != "adamw-8bit"])
def test_every_optimizer_learns_and_resumes_to_the_same_bits(
    decoder_of: Callable[..., Decoder],
    batch_of: Callable[..., TokenBatch],
    tmp_path: Path,
    name: Optimizer,
) -> None:
    config = OptimizerConfig(name=name, momentum=0.9)
    rate, batch = {"sgd": 0.3, "lamb": 0.02}.get(name, 0.01), batch_of(4)
    model = decoder_of()
    optimizer = build_optimizer(model, config)

    def step(model: Decoder, optimizer: torch.optim.Optimizer) -> float:
        loss = next_token_loss(model, batch) / batch.n_valid
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    losses = [step(model, optimizer) for _ in range(10)]
    saved = save_checkpoint(tmp_path, model, optimizer, LoopState(step=10))
    losses += [step(model, optimizer) for _ in range(10)]
    assert losses[-1] < losses[0] - 0.5
    again = decoder_of(seed=7)
    fresh = build_optimizer(again, config)
    load_checkpoint(saved, again, fresh)
    assert [step(again, fresh) for _ in range(10)] == losses[10:]


@pytest.mark.slow
def test_moments_in_eight_bits_follow_the_curve_of_float32(tmp_path: Path) -> None:
    """In a process of its own: torchao warns as it loads, and compiles its step."""
    pytest.importorskip("torchao", reason="the gpu extra")
    script = """
import torch
from torch import nn
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer, set_learning_rate

def losses(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64))
    x, y = torch.randn(512, 128), torch.randint(0, 64, (512,))
    optimizer = build_optimizer(model, OptimizerConfig(name=name))
    found = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        set_learning_rate(optimizer, 3e-3)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found

ours, exact = losses("adamw-8bit"), losses("adamw")
assert exact[-1] < exact[0] / 4, exact
assert all(abs(a - b) < 0.03 * exact[0] for a, b in zip(ours, exact)), (ours, exact)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
