"""The optimizer and which parameters decay; not the learning rate over time (`schedules.py`)."""

from __future__ import annotations

import torch
from torch import nn

from isoflop.training.recipe import OptimizerConfig


def build_adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices only.

    Norm gains and embeddings (with them a tied output layer) do not decay: decay would shrink
    rows of rare tokens that get no gradient to oppose it.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        embedding = "embed" in name or "lm_head" in name
        (free if parameter.ndim < 2 or embedding else decayed).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
