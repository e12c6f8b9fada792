"""A layout applied to a model from outside, in one order: layers dealt to stages, then tensors cut,
then experts dealt, then what is left sharded.

What the layers compute again in the backward pass is settled before (`training/execution.py`).
Not for the axes' own ways (`pipeline.py`, `tensor.py`, `context.py`, `experts.py`) nor for what
ranks say to each other (`ranks.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from isoflop.models.build import build_model
from isoflop.models.decoder import Block, Decoder
from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.training.objectives import TokenBatch
from isoflop.training.parallel.context import Context
from isoflop.training.parallel.deal import dealt_layers, keep_layers
from isoflop.training.parallel.experts import ExpertsOfRanks, deal_experts
from isoflop.training.parallel.ranks import Ranks
from isoflop.training.parallel.stage import Stage
from isoflop.training.parallel.tensor import cut_tensors
from isoflop.training.step import Task


class _LossOf(nn.Module):
    """A model with its loss as the forward pass, in which the weights outside layers are whole."""

    def __init__(self, model: nn.Module, task: Task[Any, Any]) -> None:
        super().__init__()
        self.model, self._loss = model, task.loss

    def forward(self, batch: Any) -> Tensor:
        loss: Tensor = self._loss(self.model, batch)
        return loss


def apply_layout(
    model: nn.Module, task: Task[Any, Any], ranks: Ranks, seq_len: int = 0
) -> Task[Any, Any]:
    """Cut the model, in place, as the ranks are laid out.

    Args:
        model: With its initial weights, the same on all ranks.
        task: What it is trained on; its batches and losses are those of one process. With a
            pipeline, tensor or context parallel, it is next-token prediction.
        seq_len: Positions of a row; of no matter for layouts of `dp` and `fsdp` alone.

    Returns:
        The task whose loss is that of this rank's part of each micro-batch.
    """
    mesh, parallel = ranks.mesh, ranks.parallel
    if mesh is None:
        return task
    if isinstance(model, Decoder) and parallel.pp * parallel.tp * parallel.cp > 1:
        return _staged(model, task, ranks, mesh, seq_len)
    if parallel.ep > 1 and ranks.fine is not None:
        deal_experts(model, ranks.fine["ep"])
    loss = _LossOf(model, task)
    # An encoder–decoder's layers are entered from outside, by parts.
    layers = [] if isinstance(model, EncoderDecoder) else model.get_submodule("layers").children()
    _shard(loss, list(layers), ranks, mesh)
    return replace(task, loss=lambda model, batch: loss(batch))


def _staged(
    model: Decoder, task: Task[Any, Any], ranks: Ranks, mesh: DeviceMesh, seq_len: int
) -> Task[Any, Any]:
    parallel = ranks.parallel
    stages = dealt_layers(parallel, mesh.get_local_rank("pp"), model.config.n_layers)
    keep_layers(model, stages)
    tensor_mesh = mesh["tp"] if parallel.tp > 1 else None
    if tensor_mesh is not None:
        cut_tensors(model, tensor_mesh)
    context = None
    if parallel.cp > 1 and ranks.fine is not None and model.rotary is not None:
        context = Context(ranks.fine["cp"], model.rotary, seq_len)
        for block in model.layers:
            if isinstance(block, Block):
                block.fuses_attention = False
    if parallel.ep > 1 and ranks.fine is not None:
        deal_experts(model, ranks.fine["ep"])
    modules = [Stage(model, layers, tensor_mesh, context) for layers in stages]
    for module in modules:
        if parallel.dp * parallel.fsdp * parallel.cp > 1:
            _shard(module, list(module.layers), ranks, mesh)
    if parallel.pp > 1:
        # Imported here: torch's schedules take most of a second, and one process needs none.
        from isoflop.training.parallel.pipeline import Pipeline

        positions = seq_len // (parallel.cp * parallel.tp)
        pipeline = Pipeline(model, modules, parallel, mesh, positions)
        return replace(task, passes=pipeline.passes)
    return replace(task, loss=_loss_of(modules[0]))


def _loss_of(stage: Stage) -> Callable[[Any, TokenBatch], Tensor]:
    def loss(model: Any, batch: TokenBatch) -> Tensor:
        one = torch.ones(1, device=batch.ids_BT.device)
        found: Tensor = stage(
            batch.ids_BT, document_BT=batch.document_BT, labels_BT=batch.labels_BT, counts_1=one
        )
        return found.sum()

    return loss


def _shard(outer: nn.Module, layers: list[nn.Module], ranks: Ranks, mesh: DeviceMesh) -> None:
    """Shard each layer and then what is left of `outer`; experts that were dealt among more ranks
    than have a copy of them, as a module of their own."""
    parallel, apart = ranks.parallel, set[nn.Parameter]()
    data = mesh["dp", "shard"] if parallel.dp > 1 else mesh["shard"]
    keeps = parallel.fsdp * parallel.cp == 1 or parallel.zero < 3
    for module in outer.modules():
        if isinstance(module, ExpertsOfRanks) and ranks.fine is not None:
            fine = ranks.fine
            if parallel.dp * parallel.fsdp == parallel.ep:  # each one's gradient is whole already
                apart |= set(module.parameters())
                continue
            copies = fine["dp", "fsdp"] if parallel.dp > 1 else fine["fsdp"]
            _summing(
                fully_shard(
                    module,
                    mesh=copies,
                    reshard_after_forward=not keeps,
                    shard_placement_fn=lambda weight: Shard(1),
                )
            )
    for layer in layers:
        _summing(
            fully_shard(layer, mesh=data, reshard_after_forward=not keeps, ignored_params=apart)
        )
    _summing(fully_shard(outer, mesh=data, reshard_after_forward=False, ignored_params=apart))


def _summing(sharded: Any) -> None:
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
    names = ranks.gathered([name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if found is not None:
            found.get_parameter(name).data.copy_(value)
        elif ranks.rank == next(r for r, held in enumerate(names) if name in held):
            dist.send(value.contiguous(), dst=0)  # of a stage that the main rank has no part in
    if found is not None:
        seen = set(names[0])
        for rank, held in enumerate(names):
            for name in held:
                if name not in seen:
                    dist.recv(found.get_parameter(name).data, src=rank)
                    seen.add(name)
    return found
