"""The gradient of all ranks together: when it is reduced, its norm, its clipping; not for making it
(`step.py`)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from isoflop.training.health import squared_norm
from isoflop.training.parallel.ranks import Ranks

EMBEDDING = "embed_tokens.weight"
"""The parameter that a model with a tied output layer has on its first and its last stage."""


def reduces_every_pass(ranks: Ranks) -> bool:
    """Whether gradients are reduced in each pass and not once a step."""
    parallel = ranks.parallel
    if parallel.pp > 1:
        return False
    shared = parallel.fsdp * parallel.cp
    return parallel.dp * shared == 1 or (shared > 1 and parallel.zero > 1)


def begin_pass(model: nn.Module, ranks: Ranks, *, last: bool) -> None:
    """Say before a forward and backward pass whether it is the last one of its step."""
    if ranks.mesh is None or reduces_every_pass(ranks):
        return
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last, recurse=False)
            module.set_reshard_after_backward(last, recurse=False)


def global_square(model: nn.Module, ranks: Ranks) -> float:
    """Squared length of the gradient of which each rank holds a part."""
    if ranks.mesh is None:
        return squared_norm(model)
    squares = [
        gradient.to(torch.float64).square().sum().item() / copies
        for _, gradient, copies in _gradients(model, ranks)
    ]
    return ranks.summed([math.fsum(squares)])[0]


def clip_gradient(model: nn.Module, clip_norm: float, ranks: Ranks) -> float:
    """Scale the gradient to a norm of at most `clip_norm`; returns the norm before."""
    if ranks.mesh is None:
        return float(nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item())
    norm = float(global_square(model, ranks) ** 0.5)
    factor = min(1.0, clip_norm / (norm + 1e-6))
    for parameter, gradient, _ in _gradients(model, ranks):
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            parameter.grad = DTensor.from_local(
                gradient.mul_(factor),
                mesh,
                placements,
                run_check=False,
                shape=parameter.shape,
                stride=parameter.stride(),
            )
        else:
            gradient.mul_(factor)
    return norm


def scale_gradient(model: nn.Module, factor: float) -> None:
    """Multiply the gradient."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    torch._foreach_mul_(local, factor)


def _gradients(model: nn.Module, ranks: Ranks) -> Iterator[tuple[nn.Parameter, Tensor, int]]:
    """Parameter, the part of its gradient that lies here, and how many ranks hold that part."""
    stages = ranks.parallel.pp
    tied = stages > 1 and bool(getattr(model.config, "tie_embeddings", False))
    for name, parameter in model.named_parameters():
        gradient, copies = parameter.grad, ranks.size // stages
        if gradient is None:
            continue
        if tied and name == EMBEDDING:  # the first and the last stage have it
            copies *= 2
        if isinstance(parameter, DTensor) and isinstance(gradient, DTensor):
            if gradient.placements != parameter.placements:  # sums still to be taken
                gradient = gradient.redistribute(placements=parameter.placements)
            sizes = zip(parameter.device_mesh.shape, parameter.placements, strict=True)
            copies //= math.prod(size for size, place in sizes if not place.is_replicate())
            gradient = gradient.to_local().detach()
        yield parameter, gradient, copies
