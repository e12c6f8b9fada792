"""Memory of a rank at the peak of a training step against what is foretold, by layout.

`python benchmarks/parallel_memory.py`: whole steps in float32 on the CPU over gloo, the bytes of
all tensors of the fullest rank that live at one time, batch left out. Ratios are foretold over
measured.
"""

from __future__ import annotations

import argparse
import os
import socket
import weakref
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isoflop.models.config import DecoderConfig, ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.native import calls as native
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.apply import apply_layout
from isoflop.training.parallel.memory import rank_memory_bytes
from isoflop.training.parallel.ranks import processes
from isoflop.training.parallel.recipe import ParallelConfig
from isoflop.training.step import Task, apply_gradient, compute_gradient

SEQ_LEN, ROWS, VOCAB, MICRO_BATCHES = 128, 2, 2048, 8
DENSE = DecoderConfig(VOCAB, 256, 4, 4, 2, 64, 704, SEQ_LEN)
DEEP = DecoderConfig(VOCAB, 128, 8, 2, 2, 64, 352, SEQ_LEN)
EXPERTS = DecoderConfig(VOCAB, 128, 4, 2, 2, 64, 352, SEQ_LEN, experts=ExpertsConfig(8, 2, 256))
PAIRS: list[tuple[str, DecoderConfig, dict[str, Any]]] = [
    ("4 layers of 256", DENSE, {"dp": 2}),
    ("4 layers of 256", DENSE, {"fsdp": 2}),
    ("4 layers of 256", DENSE, {"fsdp": 4}),
    ("4 layers of 256", DENSE, {"fsdp": 2, "zero": 1}),
    ("4 layers of 256", DENSE, {"tp": 2}),
    ("4 layers of 256", DENSE, {"cp": 2}),
    ("4 layers of 256", DENSE, {"fsdp": 2, "tp": 2}),
    ("4 layers of 256", DENSE, {"fsdp": 2, "cp": 2}),
    ("4 layers of 256", DENSE, {"tp": 2, "cp": 2}),
    ("8 layers of 128", DEEP, {"fsdp": 2}),
    ("8 layers of 128", DEEP, {"tp": 2}),
    ("8 layers of 128", DEEP, {"cp": 2}),
    ("8 layers of 128", DEEP, {"pp": 2, "tp": 2}),
    ("8 layers of 128", DEEP, {"pp": 2}),
    ("8 layers of 128", DEEP, {"pp": 4}),
    ("experts, 4 layers of 128", EXPERTS, {"fsdp": 2}),
    ("experts, 4 layers of 128", EXPERTS, {"fsdp": 2, "ep": 2}),
]


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that live, at the size each has at the time, and their peak."""

    def __init__(self, lasting: list[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._storages: dict[int, Any] = {}
        for tensor in lasting:
            self._watch(tensor)

    def _watch(self, tensor: Tensor) -> None:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = local.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage)
            weakref.finalize(storage, self._storages.pop, key, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._watch(leaf)
        living = (found() for found in list(self._storages.values()))
        self.peak = max(self.peak, sum(storage.nbytes() for storage in living if storage))
        return out


def step_of(config: DecoderConfig, ranks: Any) -> Any:
    """A function that takes a whole step, and the tensors that live between steps."""
    model = Decoder(config)
    initialise(model, 0)
    ids = torch.randint(config.vocab_size, (ROWS, SEQ_LEN))
    document = (torch.arange(SEQ_LEN) // 100).expand(ROWS, -1).contiguous()
    batch = TokenBatch(ids, ids, document, ids.numel())
    task: Task[Any, Any] = Task(
        lambda _: [batch] * MICRO_BATCHES, next_token_loss, lambda _: {}, lambda _: ()
    )
    task = apply_layout(model, task, ranks, SEQ_LEN)
    optimizer = build_optimizer(model, OptimizerConfig())

    def step() -> None:
        compute_gradient(model, task, 0, 1.0, ranks=ranks)
        apply_gradient(optimizer, 1e-3)

    step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return step, [*model.parameters(), *states]


def measure(
    rank: int, port: int, config: DecoderConfig, parallel: ParallelConfig, tell: Connection
) -> None:
    """Send the peak of this rank's tensors in the second of two steps."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(parallel.devices),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with processes(parallel) as ranks:
        step, lasting = step_of(config, ranks)
        live = LiveBytes(lasting)
        with live:
            step()
    tell.send(live.peak)


def fullest(config: DecoderConfig, parallel: ParallelConfig) -> int:
    """Peak bytes of the rank that holds the most."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["isoflop.training.pretrain"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = []
    for rank in range(parallel.devices):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(rank, port, config, parallel, theirs))
        process.start()
        members.append((process, ours))
    found = [ours.recv() for _, ours in members]
    for process, _ in members:
        process.join()
    return int(max(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose model and layout hold this")
    only = parser.parse_args().only
    print("| model | layout | foretold MB | measured | ratio |\n|---|---|---|---|---|")
    for name, config, layout in PAIRS:
        words = " · ".join(f"{axis} {size}" for axis, size in layout.items())
        if only not in f"{name} {words}":
            continue
        parallel = ParallelConfig(**layout)
        told = rank_memory_bytes(
            config,
            parallel,
            micro_batch_tokens=ROWS * SEQ_LEN,
            seq_len=SEQ_LEN,
            micro_batches=MICRO_BATCHES // parallel.data_ranks,
            native=native.in_use(),
        )
        seen = fullest(config, parallel)
        print(
            f"| {name} | {words} | {told.total / 1e6:.1f} | {seen / 1e6:.1f} "
            f"| {told.total / seen:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
