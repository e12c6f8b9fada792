"""A layout applied to a model from outside: first its tensors are cut, then its layers sharded.

What the layers compute again in the backward pass is settled before (`training/execution.py`).
Not for the axes' own ways (`tensor.py`) nor for what ranks say to each other (`ranks.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from isoflop.models.build import build_model
from isoflop.models.decoder import Decoder
from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.training.parallel.ranks import Ranks
from isoflop.training.parallel.tensor import cut_tensors, loss_of_own_positions
from isoflop.training.step import Task


class _LossOf(nn.Module):
    """A model with its loss as the forward pass, in which the weights outside layers are whole."""

    def __init__(self, model: nn.Module, task: Task[Any, Any]) -> None:
        super().__init__()
        self.model, self._loss = model, task.loss

    def forward(self, batch: Any) -> Tensor:
        loss: Tensor = self._loss(self.model, batch)
        return loss


def apply_layout(model: nn.Module, task: Task[Any, Any], ranks: Ranks) -> Task[Any, Any]:
    """Cut the model, in place, as the ranks are laid out.

    Args:
        model: With its initial weights, the same on all ranks.
        task: What it is trained on; its batches and losses are those of one process.

    Returns:
        The task whose loss is that of this rank's part of each micro-batch.
    """
    mesh, parallel = ranks.mesh, ranks.parallel
    if mesh is None:
        return task
    if parallel.tp > 1 and isinstance(model, Decoder):
        tensor_mesh = mesh["tp"]
        cut_tensors(model, tensor_mesh)
        task = replace(
            task, loss=lambda model, batch: loss_of_own_positions(model, batch, tensor_mesh)
        )
    if parallel.data_ranks == 1:
        return task
    loss = _LossOf(model, task)
    data_mesh = mesh["dp", "fsdp"] if parallel.dp > 1 else mesh["fsdp"]
    if not isinstance(model, EncoderDecoder):  # whose layers are entered from outside, by parts
        for layer in model.get_submodule("layers").children():
            _shard(layer, data_mesh, ranks)
    _shard(loss, data_mesh, ranks)
    return replace(task, loss=lambda model, batch: loss(batch))


def _shard(module: nn.Module, mesh: DeviceMesh, ranks: Ranks) -> None:
    parallel = ranks.parallel
    keeps = parallel.fsdp == 1 or parallel.zero < 3 or isinstance(module, _LossOf)
    sharded = fully_shard(module, mesh=mesh, reshard_after_forward=not keeps)
    # A step divides by the count of the global batch itself: gradients are sums.
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)


def whole_model(model: Any, ranks: Ranks) -> Any:
    """On the main rank a model of its own with the whole weights, elsewhere None; the model itself
    where there is one process."""
    if ranks.mesh is None:
        return model
    found = None
    if ranks.is_main:
        found = build_model(model.config)
        found.to(next(model.parameters()).device)
    into = dict(found.named_parameters()) if found is not None else {}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if isinstance(value, DTensor):
            value = value.full_tensor()
        if found is not None:
            into[name].data.copy_(value)
    return found
