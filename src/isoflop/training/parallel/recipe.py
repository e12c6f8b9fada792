"""The `[parallel]` table: along which axes a run is laid out, and what does not fit; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isoflop.core.errors import RecipeError
from isoflop.models.config import AnyConfig, DecoderConfig

AXES = ("pp", "dp", "fsdp", "cp", "tp")
"""From the slowest link to the fastest: neighbouring ranks are tensor parallel first. `ep` is no
axis of its own, for experts are spread over ranks that see different sequences."""


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
    """Pipeline stages; only 1 so far."""
    ep: int = 1
    """Expert parallel; only 1 so far."""
    cp: int = 1
    """Context parallel; only 1 so far."""
    zero: int = 3
    """With fsdp. 3: weights are gathered for every pass and given back; 2: kept from the forward to
    the backward pass; 1: kept for the whole step, whose gradients are reduced once."""

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
    for name in ("dp", "fsdp", "tp", "pp", "ep", "cp"):
        if (value := getattr(parallel, name)) < 1:
            yield f"parallel.{name} = {value} must be at least 1"
    for name in ("pp", "ep", "cp"):
        if (value := getattr(parallel, name)) > 1:
            yield f"parallel.{name} = {value} is not there yet; dp, fsdp and tp are"
    if parallel.zero not in (1, 2, 3):
        yield f"parallel.zero = {parallel.zero} must be 1, 2 or 3"


def require_fit(parallel: ParallelConfig, config: AnyConfig, seq_len: int) -> None:
    """Check a layout against the model.

    Raises:
        RecipeError: Lists every number that the layout does not divide.
    """
    tp = parallel.tp
    problems = []
    if parallel.devices > 1 and (not isinstance(config, DecoderConfig) or config.experts):
        problems.append("[parallel] is for decoders without experts so far")
    elif tp > 1 and isinstance(config, DecoderConfig):
        parts = {
            "model.n_heads": config.n_heads,
            "model.n_kv_heads": config.n_kv_heads,
            "model.d_ff": config.d_ff,
            "train.seq_len": seq_len,
        }
        problems += [
            f"parallel.tp = {tp} does not divide {name} = {value}"
            for name, value in parts.items()
            if value % tp
        ]
        if not config.is_fused or config.activation != "swiglu" or config.window is not None:
            problems.append(f"parallel.tp = {tp} is for models of the default form so far")
    if problems:
        raise RecipeError("; ".join(problems), where="train recipe")


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
