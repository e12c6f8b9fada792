"""Which optimizer, at which learning rate over time and width: the recipe's table; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from isoflop.training.schedules import Schedule

Optimizer = Literal["adamw", "muon", "lamb", "sgd", "adamw-8bit"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate."""

    name: Optimizer = "adamw"
    """adamw (Loshchilov & Hutter 2019); muon (Jordan et al. 2024) for the blocks' matrices with
    adamw for the rest; lamb (You et al. 2020); sgd with momentum, as a control; adamw-8bit keeps
    its moments in 8 bits (needs the `gpu` extra)."""
    learning_rate: float = 4e-3
    """Peak learning rate."""
    schedule: Schedule = "wsd"
    """Shape of the learning rate over the run."""
    warmup_tokens: int = 200_000
    """Tokens over which the learning rate rises from 0."""
    decay_fraction: float = 0.2
    """Last share of the run over which `wsd` decays."""
    final_fraction: float = 0.0
    """Learning rate at the end, as a share of the peak."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices (of sgd: added to the gradient); norms, biases and embeddings
    have none."""
    beta1: float = 0.9
    """Decay rate of the first moment (adamw, lamb)."""
    beta2: float = 0.95
    """Decay rate of the second moment (adamw, lamb)."""
    momentum: float = 0.95
    """Decay rate of the gradients' running mean (muon, sgd)."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    clip_norm: float = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it."""
    base_width: int | None = None
    """Width at which `learning_rate` was tuned: models of other widths then scale rates, decay and
    the output's size by maximal-update parametrisation, so that the best rate stays (Yang & Hu
    2021). Off when not given."""
    base_depth: int | None = None
    """Depth at which it was tuned: the same for the number of blocks (Dey et al. 2025)."""
    average_decay: float | None = None
    """Keep an exponential mean of the weights with this decay per step; it is what is evaluated
    and exported. Off when not given."""


def optimizer_problems(config: OptimizerConfig) -> Iterator[str]:
    """What is impossible in an optimizer's table, one phrase each."""

    def value(name: str) -> str:
        return f"optimizer.{name} = {getattr(config, name)}"

    for name in ("learning_rate", "clip_norm"):
        if not getattr(config, name) > 0:
            yield f"{value(name)} must be positive"
    for name in ("warmup_tokens", "weight_decay", "eps"):
        if not getattr(config, name) >= 0:
            yield f"{value(name)} must not be negative"
    for name in ("decay_fraction", "final_fraction"):
        if not 0 <= getattr(config, name) <= 1:
            yield f"{value(name)} is outside [0, 1]"
    for name in ("beta1", "beta2", "momentum"):
        if not 0 <= getattr(config, name) < 1:
            yield f"{value(name)} is outside [0, 1)"
    for name in ("base_width", "base_depth"):
        if (size := getattr(config, name)) is not None and size < 1:
            yield f"{value(name)} must be at least 1"
    if config.average_decay is not None and not 0 < config.average_decay < 1:
        yield f"{value('average_decay')} is outside (0, 1)"
    if config.schedule == "inverse-sqrt" and not config.warmup_tokens:
        yield "optimizer.schedule = inverse-sqrt falls from the end of warm-up: give warmup_tokens"
