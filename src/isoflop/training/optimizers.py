"""From the recipe's table to an optimizer over a model's parameters; not the learning rate over
time (`schedules.py`), nor the algorithms that torch lacks (`muon.py`, `lamb.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from isoflop.core.errors import RunError
from isoflop.training.lamb import Lamb
from isoflop.training.muon import Muon
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.scaling import Role, Scaling, roles


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, scaling: Scaling | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of `model`.

    Norm gains, biases and embeddings (with them a tied output layer) do not decay: decay would
    shrink rows of rare tokens that get no gradient to oppose it.

    Args:
        scaling: How much larger the model is than the one whose rate was tuned.

    Raises:
        RunError: The optimizer needs a package that is not installed.
    """
    groups = _groups(model, config, scaling or Scaling())
    lr, betas, eps = config.learning_rate, (config.beta1, config.beta2), config.eps
    if config.name == "muon":
        return Muon(groups, lr, config.momentum, betas, eps)
    if config.name == "lamb":
        return Lamb(groups, lr, betas, eps)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr, config.momentum, nesterov=config.momentum > 0)
    if config.name == "adamw-8bit":
        return _adamw_8bit(groups, lr, betas, eps)
    return torch.optim.AdamW(groups, lr, betas, eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every parameter group: the schedule's, times the group's own factor."""
    for group in optimizer.param_groups:
        rate = learning_rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):  # an 8-bit optimizer compiles around it
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _groups(model: nn.Module, config: OptimizerConfig, scaling: Scaling) -> list[dict[str, Any]]:
    """Parameter groups by learning rate and decay, in the order of the model's parameters."""
    found: dict[tuple[float, float, bool, object], list[nn.Parameter]] = {}
    by_role = roles(model)
    for name, parameter in model.named_parameters():
        role: Role = by_role[name]
        matrix = role in ("matrix", "residual output")
        orthogonal = matrix and config.name == "muon"
        decay = config.weight_decay * scaling.weight_decay(role, orthogonal) if matrix else 0.0
        # Tensors that lie on other ranks than the rest are not stepped in one go with it.
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        key = (scaling.learning_rate(role, orthogonal), decay, orthogonal, mesh)
        found.setdefault(key, []).append(parameter)
    return [
        {"params": members, "lr_scale": scale, "weight_decay": decay}
        | ({"orthogonal": orthogonal} if config.name == "muon" else {})
        for (scale, decay, orthogonal, _), members in found.items()
    ]


def _adamw_8bit(
    groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise RunError(
            "optimizer.name = adamw-8bit needs torchao",
            where="train recipe",
            fix="Install it with `pip install 'isoflop[gpu]'`, or take optimizer.name = adamw",
        ) from None
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=lr, betas=betas, eps=eps)
    return optimizer
