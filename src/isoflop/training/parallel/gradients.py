"""The gradient of all ranks together: when it is reduced, its norm, its clipping; not for making it
(`step.py`)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from isoflop.training.health import squared_norm
from isoflop.training.parallel.ranks import Ranks


def reduces_every_pass(ranks: Ranks) -> bool:
    """Whether gradients are reduced in each pass and not once a step."""
    return ranks.parallel.data_ranks == 1 or (ranks.parallel.fsdp > 1 and ranks.parallel.zero > 1)


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
    squares: dict[tuple[str, ...], list[Tensor]] = {}
    for _, gradient, axes in _gradients(model):
        squares.setdefault(axes, []).append(gradient.to(torch.float64).square().sum())
    total = 0.0
    for axes in sorted(squares):  # in the same order everywhere: each is a message
        total += ranks.summed([torch.stack(squares[axes]).sum().item()], axes)[0]
    return total


def clip_gradient(model: nn.Module, clip_norm: float, ranks: Ranks) -> float:
    """Scale the gradient to a norm of at most `clip_norm`; returns the norm before."""
    if ranks.mesh is None:
        return float(nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item())
    norm = float(global_square(model, ranks) ** 0.5)
    factor = min(1.0, clip_norm / (norm + 1e-6))
    for parameter, gradient, _ in _gradients(model):
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


def _gradients(model: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor, tuple[str, ...]]]:
    """Parameter, the part of its gradient that lies here, and the axes it is cut along."""
    for parameter in model.parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        if not isinstance(parameter, DTensor) or not isinstance(gradient, DTensor):
            yield parameter, gradient, ()
            continue
        if gradient.placements != parameter.placements:  # sums still to be taken
            gradient = gradient.redistribute(placements=parameter.placements)
        names = parameter.device_mesh.mesh_dim_names or ()
        cut = zip(names, parameter.placements, strict=True)
        axes = tuple(name for name, place in cut if not place.is_replicate())
        yield parameter, gradient.to_local().detach(), axes
