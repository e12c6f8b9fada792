"""What ranks of the pool prove in float64 about the parts of a layout; no tests of its own."""

from __future__ import annotations

import errno
import os
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from isoflop.models.config import DecoderConfig, ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.models.documents import DocumentMask
from isoflop.models.initialise import initialise
from isoflop.models.layers import RotaryPositions, causal_attention
from isoflop.models.moe import Experts, MixtureOfExperts, auxiliary_loss
from isoflop.training.checkpoint import LoopState
from isoflop.training.checkpoint_writer import CheckpointWriter
from isoflop.training.objectives import next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.apply import apply_layout
from isoflop.training.parallel.context import Context
from isoflop.training.parallel.experts import ExpertsOfRanks, deal_experts
from isoflop.training.parallel.ranks import processes
from isoflop.training.parallel.recipe import ParallelConfig
from isoflop.training.step import Task


def ring_attention(ranks: int) -> float:
    """The largest difference of ring attention and its gradients to attention on one rank."""
    length, found = 24, []
    draw = torch.Generator().manual_seed(3)
    q, k, v, d_out = (
        torch.randn(2, heads, length, 8, generator=draw, dtype=torch.float64)
        for heads in (4, 2, 2, 4)
    )
    document_BT = torch.tensor([[0] * length, [0] * 5 + [1] * 9 + [2] * 10])
    with processes(ParallelConfig(cp=ranks)) as here:
        assert here.fine is not None
        context = Context(here.fine["cp"], RotaryPositions(8, length, 1e4), length)
        own = context.own_t
        parts = [x[:, :, own].detach().requires_grad_() for x in (q, k, v)]
        mixed = context.attention(document_BT)(*parts)
        mixed.backward(d_out[:, :, own])
    whole = [x.requires_grad_() for x in (q, k, v)]
    expected = causal_attention(*whole, DocumentMask(document_BT, torch.float64))
    expected.backward(d_out)
    found.append((mixed - expected[:, :, own]).abs().max().item())
    for part, one in zip(parts, whole, strict=True):
        assert part.grad is not None
        assert one.grad is not None
        found.append((part.grad - one.grad[:, :, own]).abs().max().item())
    return max(found)


def dealt_experts(ranks: int, top_k: int) -> float:
    """The largest difference of dealt experts, their gradients and that of the router to those of
    one rank with the tokens of all."""
    config = ExpertsConfig(n_experts=4, top_k=top_k, d_expert=6, n_shared=1)
    draw = torch.Generator().manual_seed(4)
    alone = MixtureOfExperts(8, config).double()
    with torch.no_grad():
        for parameter in alone.parameters():
            parameter.normal_(0, 0.5, generator=draw)
        if top_k == 1:  # all tokens go to experts of the first rank: the others get none
            alone.gate.weight[1:] = 0
            alone.gate.weight[0] = 1
    x_BTD = torch.randn(2 * ranks, 5, 8, generator=draw, dtype=torch.float64).abs()
    dealt = deepcopy(alone)
    with processes(ParallelConfig(fsdp=ranks, ep=ranks)) as here:
        assert here.fine is not None
        deal_experts(dealt, here.fine["ep"])
        mine = slice(2 * here.rank, 2 * here.rank + 2)
        found = [(_loss(dealt, x_BTD[mine])[0] - _loss(alone, x_BTD)[0][mine]).abs().max().item()]
        for name, parameter in dealt.named_parameters():
            gradient, expected = parameter.grad, alone.get_parameter(name).grad
            assert gradient is not None
            assert expected is not None
            if name.startswith("experts."):  # each rank has all that its experts got
                gradient = gradient.full_tensor()  # type: ignore[attr-defined]
            else:
                torch.distributed.all_reduce(gradient)
            found.append((gradient - expected).abs().max().item())
    return max(found)


def one_token_for_the_second_rank() -> float:
    """The largest difference of dealt experts to all of them on one rank, in float32, where a
    single row travels."""
    draw = torch.Generator().manual_seed(5)
    alone = Experts(8, ExpertsConfig(n_experts=2, top_k=1, d_expert=8))
    with torch.no_grad():
        for parameter in alone.parameters():
            parameter.normal_(0, 0.5, generator=draw)
    x_ND, share_NX = torch.randn(4, 8, generator=draw), torch.ones(4, 1)
    with processes(ParallelConfig(fsdp=2, ep=2)) as here:
        assert here.fine is not None
        dealt = ExpertsOfRanks(alone, here.fine["ep"])
        index_NX = torch.tensor([[0], [0], [0], [1 if here.rank == 0 else 0]])
        found = dealt(x_ND, index_NX, share_NX) - alone(x_ND, index_NX, share_NX)
        found.sum().backward()
    return float(found.abs().max())


def _loss(module: MixtureOfExperts, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    out_BTD, routing = module(x_BTD)
    loss = F.softplus(out_BTD).sum() + auxiliary_loss([routing], ExpertsConfig(4, 1, 6))
    loss.backward()
    return out_BTD.detach(), loss


def hanging_rank() -> None:
    """Two ranks that add up, of which the second one does something else."""
    with processes(ParallelConfig(fsdp=2, patience_seconds=1)) as here:
        here.at(7, "gradient")
        if here.rank == 1:
            here.at(7, "nap")
            time.sleep(5)
        here.summed([1.0])


def full_disk(directory: Path) -> None:
    """Two checkpoints of two ranks; at the second one the disk of the second rank is full."""
    sync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with processes(ParallelConfig(fsdp=2)) as here:
        model = Decoder(DecoderConfig(61, 32, 2, 2, 1, 16, 48, 16))
        initialise(model, 0)
        task: Task[Any, Any] = Task(lambda _: [], next_token_loss, lambda _: {}, lambda _: ())
        apply_layout(model, task, here)
        optimizer = build_optimizer(model, OptimizerConfig())
        writer = CheckpointWriter(directory, here)
        writer.begin(model, optimizer, LoopState(step=1), None, lambda: None)
        writer.wait()
        if here.rank == 1:
            os.fsync = full
        writer.begin(model, optimizer, LoopState(step=2), None, lambda: None)
        try:
            writer.wait()
        finally:
            os.fsync = sync
            writer.close()
