"""The LAMB optimizer: Adam's direction, each tensor's step as long as its weights; nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """LAMB (You et al. 2020, algorithm 2, φ the identity), for very large batches.

    With m̂ and v̂ Adam's bias-corrected moments, r = m̂ / (√v̂ + eps) + λ·w and
    w ← w − lr · (‖w‖ / ‖r‖) · r; the ratio is 1 where either norm is 0.

    Args:
        params: Parameter groups; `weight_decay` λ by group.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        step = state["step"].item()
        first = state["exp_avg"].lerp_(grad, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        update = (first / (1 - beta1**step)).div_(root).add_(weight, alpha=group["weight_decay"])
        size, length = weight.norm().item(), update.norm().item()
        trust = size / length if size > 0 and length > 0 else 1.0
        weight.add_(update, alpha=-group["lr"] * trust)
