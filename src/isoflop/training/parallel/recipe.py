"""The `[parallel]` table: along which axes a run is laid out, and what does not fit; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.models.config import AnyConfig, DecoderConfig
from isoflop.training.optimizer_recipe import OptimizerConfig

AXES = ("pp", "dp", "fsdp", "cp", "tp")
"""From the slowest link to the fastest: neighbouring ranks are tensor parallel first. `ep` is no
axis of its own: experts are dealt among ranks of `fsdp`, which see different sequences."""


@dataclass(frozen=True)
class ParallelConfig:
    """How a run is laid out over the processes that torchrun starts. It changes nothing but the
    speed and the memory of each."""

    dp: int = 1
    """Replicas, each on sequences of its own."""
    fsdp: int = 1
    """Processes that share the weights, gradients and moments of a replica, each on sequences of
    its own."""
    tp: int = 1
    """Tensor parallel: processes that share every matrix of a layer, and the positions of the
    sequences between them."""
    pp: int = 1
    """Pipeline stages: processes that each hold some neighbouring layers."""
    ep: int = 1
    """Expert parallel: among how many neighbours of `fsdp`, which it divides, the experts of a
    layer are dealt; the tokens travel to them."""
    cp: int = 1
    """Context parallel: processes that one sequence is cut over (ring attention); they share the
    weights as those of `fsdp` do."""
    patience_seconds: int = 1800
    """How long a rank waits for the others before it names who keeps it waiting and ends; while the
    first one evaluates, they wait."""
    zero: int = 3
    """With fsdp. 3: weights are gathered for every pass and given back; 2: kept from the forward to
    the backward pass; 1: kept for the whole step, whose gradients are reduced once."""
    schedule: Literal["1f1b", "gpipe"] = "1f1b"
    """With pp. One forward, one backward, so that few micro-batches are under way; or all forward
    passes of a step, then all backward ones."""
    interleave: int = 1
    """With pp: pieces of the model that each process holds; more than 1 is the interleaved
    schedule."""

    @property
    def devices(self) -> int:
        """Processes in all."""
        return self.dp * self.fsdp * self.tp * self.pp * self.cp

    @property
    def data_ranks(self) -> int:
        """Processes, or groups of them, that see different sequences."""
        return self.dp * self.fsdp


def parallel_problems(parallel: ParallelConfig) -> Iterator[str]:
    """What is impossible whatever the model."""
    for name in ("dp", "fsdp", "tp", "pp", "ep", "cp", "interleave", "patience_seconds"):
        if (value := getattr(parallel, name)) < 1:
            yield f"parallel.{name} = {value} must be at least 1"
            return
    if parallel.fsdp % parallel.ep:
        yield f"parallel.ep = {parallel.ep} does not divide parallel.fsdp = {parallel.fsdp}"
    if parallel.interleave > 1 and parallel.pp == 1:
        yield f"parallel.interleave = {parallel.interleave} needs parallel.pp of at least 2"
    if parallel.interleave > 1 and parallel.schedule == "gpipe":
        yield f"parallel.interleave = {parallel.interleave} is for the schedule 1f1b"
    if parallel.zero not in (1, 2, 3):
        yield f"parallel.zero = {parallel.zero} must be 1, 2 or 3"


def sharded_problems(parallel: ParallelConfig, optimizer: OptimizerConfig) -> Iterator[str]:
    """What is impossible where a run is laid out along `dp` and `fsdp` alone."""
    yield from parallel_problems(parallel)
    for name in ("tp", "pp", "ep", "cp"):
        if (value := getattr(parallel, name)) > 1:
            yield f"parallel.{name} = {value} is for pre-training; dp and fsdp are for this"
    if parallel.devices > 1:
        yield from single_process_problems(optimizer)


def single_process_problems(optimizer: OptimizerConfig) -> Iterator[str]:
    """What optimizers cannot do on several processes."""
    if optimizer.name != "adamw":
        yield f"optimizer.name = {optimizer.name} is for one process"
    if optimizer.average_decay is not None:
        yield "optimizer.average_decay is for one process"


def require_fit(parallel: ParallelConfig, config: AnyConfig, seq_len: int) -> None:
    """Check a layout against the model.

    Raises:
        RecipeError: Lists every number that the layout does not divide.
    """
    if parallel.devices == 1:
        return
    if not isinstance(config, DecoderConfig):
        raise RecipeError("[parallel] is for decoders so far", where="train recipe")
    if problems := list(_misfits(parallel, config, seq_len)):
        raise RecipeError("; ".join(problems), where="train recipe")


def _misfits(parallel: ParallelConfig, config: DecoderConfig, seq_len: int) -> Iterator[str]:
    tp, cp = parallel.tp, parallel.cp
    if tp > 1:
        parts = {
            "model.n_heads": config.n_heads,
            "model.n_kv_heads": config.n_kv_heads,
            "model.d_ff": config.d_ff,
        }
        yield from _undivided("tp", tp, parts)
        if seq_len % (cp * tp):
            product = f"parallel.tp = {tp}" if cp == 1 else f"parallel.cp · tp = {cp * tp}"
            yield f"{product} does not divide train.seq_len = {seq_len}"
        if config.activation != "swiglu":
            yield f"parallel.tp = {tp} is for SwiGLU so far"
    if cp > 1 and seq_len % (2 * cp):
        yield f"2 · parallel.cp = {2 * cp} does not divide train.seq_len = {seq_len}"
    for axis, size in (("tp", tp), ("cp", cp)):
        if size > 1 and (not config.is_fused or config.window is not None or config.experts):
            yield f"parallel.{axis} = {size} is for dense models of the default form so far"
    pieces = parallel.pp * parallel.interleave
    if config.n_layers % pieces:
        product = "parallel.pp" if parallel.interleave == 1 else "parallel.pp · interleave"
        yield f"{product} = {pieces} does not divide model.n_layers = {config.n_layers}"
    if parallel.ep > 1 and config.experts is None:
        yield f"parallel.ep = {parallel.ep} is for mixtures of experts"
    elif parallel.ep > 1 and config.experts is not None:
        yield from _undivided("ep", parallel.ep, {"model.n_experts": config.experts.n_experts})


def _undivided(axis: str, size: int, parts: Mapping[str, int]) -> Iterator[str]:
    for name, value in parts.items():
        if value % size:
            yield f"parallel.{axis} = {size} does not divide {name} = {value}"


def require_passes(parallel: ParallelConfig, micro_batches: int) -> None:
    """Check a pipeline against the micro-batches of a step.

    Raises:
        RecipeError: There are too few, or the interleaved schedule cannot deal them out.
    """
    if parallel.pp == 1:
        return
    each = -(-micro_batches // parallel.data_ranks)
    problem = None
    if parallel.interleave > 1 and each % parallel.pp:
        problem = f"parallel.pp = {parallel.pp} does not divide"
    elif each < parallel.pp:
        problem = f"parallel.pp = {parallel.pp} is more than"
    if problem is not None:
        raise RecipeError(
            f"{problem} the {each} micro-batches that each replica takes in a step",
            where="train recipe",
            fix="Take a smaller train.micro_batch_tokens or a larger train.global_batch_tokens",
        )


def require_processes(parallel: ParallelConfig, started: int) -> None:
    """Check a layout against the number of processes that torchrun started.

    Raises:
        RecipeError: They differ.
    """
    if parallel.devices == started:
        return
    product = " · ".join(f"{axis} {size}" for axis in AXES if (size := getattr(parallel, axis)) > 1)
    raise RecipeError(
        f"the layout ({product or 'nothing'} in parallel) is for {parallel.devices} "
        f"process{'es' if parallel.devices > 1 else ''}, and there "
        f"{'are' if started > 1 else 'is'} {started}",
        where="[parallel]",
        fix=f"Start it by `torchrun --nproc-per-node {parallel.devices} -m isoflop train …`"
        if parallel.devices > 1
        else f"Say how they share the work, such as --parallel.fsdp {started}",
    )
