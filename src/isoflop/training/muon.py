"""The Muon optimizer: orthogonalised momentum for matrices, AdamW for all else; nothing else.

torch's own `Muon` iterates in bfloat16 everywhere, which a CPU without such instructions computes
hundreds of times slower than float32; here the device decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: its slope at 0 is steep, so that five steps bring singular values from
0.002 to 1 within [0.68, 1.13] (Jordan et al. 2024)."""
STEPS = 5
RMS = 0.2
"""Root mean square of AdamW's updates in practice; Muon's are given the same, so that both take
one learning rate and one weight decay (Liu et al. 2025)."""


def iteration_dtype(device: torch.device) -> torch.dtype:
    """The number format of the iteration: bfloat16 where it is fast, else float32."""
    narrow = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if narrow else torch.float32


def orthogonalise(update: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """About U·Vᵀ of the singular value decomposition U·S·Vᵀ, by Newton–Schulz iteration.

    Args:
        update: One matrix (m, n) or a stack of them (..., m, n).
        dtype: Number format of the iteration; that of the device when not given.
    """
    a, b, c = COEFFICIENTS
    x = update.to(dtype or iteration_dtype(update.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    factor: Tensor = x.mT if tall else x
    return factor.to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for groups with `orthogonal`, fused AdamW for the others.

    M ← μM + (1 − μ)G; w ← w − lr·λ·w − lr · 0.2·√max(m, n) · orthogonalise((1 − μ)G + μM).

    Args:
        params: Parameter groups, each with `orthogonal` and `weight_decay`.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, {**settings, "weight_decay": 0.0, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                for weight in weights:
                    self._update(weight, group)
            elif weights:
                self._adamw(weights, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, momentum, grad = self.state[weight], group["momentum"], weight.grad
        if grad is None:
            return
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        mean = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = orthogonalise(grad.lerp(mean, momentum))
        scale = RMS * math.sqrt(max(weight.shape[-2:]))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * scale)

    def _adamw(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight].update(
                    step=torch.zeros((), device=weight.device),
                    exp_avg=torch.zeros_like(weight),
                    exp_avg_sq=torch.zeros_like(weight),
                )
        states = [self.state[weight] for weight in weights]
        beta1, beta2 = group["betas"]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
