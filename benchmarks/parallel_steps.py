"""Seconds of a training step by layout, foretold after a short calibration, against measured ones.

`python benchmarks/parallel_steps.py`: whole steps in float32 on the CPU over gloo, one thread a
rank, the least of four. Measured for the calibration are messages between two ranks, each axis on a
model of no width worth naming, and each model's share in processes of their own; no row of the
table is looked at. Other work on the machine spoils both.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from isoflop.core.hardware import usable_cores
from isoflop.core.process import keep_freed_buffers
from isoflop.models.config import DecoderConfig, ExpertsConfig
from isoflop.models.decoder import Block, Decoder
from isoflop.models.initialise import initialise
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.apply import apply_layout
from isoflop.training.parallel.ranks import Ranks, processes
from isoflop.training.parallel.recipe import ParallelConfig
from isoflop.training.parallel.timing import (
    Fixed,
    PassSeconds,
    RankSpeed,
    rank_share,
    rank_step_seconds,
)
from isoflop.training.step import Task, apply_gradient, compute_gradient

SEQ_LEN, ROWS, VOCAB, MICRO_BATCHES = 128, 2, 2048, 8
WARMUP, STEPS = 2, 4
COPIED = 1 << 26
DENSE = DecoderConfig(VOCAB, 256, 4, 4, 2, 64, 704, SEQ_LEN)
DEEP = DecoderConfig(VOCAB, 128, 8, 2, 2, 64, 352, SEQ_LEN)
WIDE = DecoderConfig(VOCAB, 512, 4, 8, 4, 64, 1408, SEQ_LEN)
EXPERTS = DecoderConfig(VOCAB, 128, 4, 2, 2, 64, 352, SEQ_LEN, experts=ExpertsConfig(8, 2, 256))
TINY = DecoderConfig(64, 32, 4, 2, 2, 16, 64, 16)
TINY_EXPERTS = replace(TINY, experts=ExpertsConfig(2, 2, 32))
PAIRS: list[tuple[str, DecoderConfig, dict[str, int]]] = [
    ("4 layers of 256", DENSE, {"dp": 2}),
    ("4 layers of 256", DENSE, {"fsdp": 2}),
    ("4 layers of 256", DENSE, {"tp": 2}),
    ("4 layers of 256", DENSE, {"pp": 2}),
    ("4 layers of 256", DENSE, {"cp": 2}),
    ("8 layers of 128", DEEP, {"fsdp": 2}),
    ("8 layers of 128", DEEP, {"pp": 2}),
    ("4 layers of 512", WIDE, {"fsdp": 2}),
    ("4 layers of 512", WIDE, {"tp": 2}),
    ("experts, 4 layers of 128", EXPERTS, {"fsdp": 2, "ep": 2}),
    ("4 layers of 256", DENSE, {"fsdp": 4}),
    ("4 layers of 256", DENSE, {"fsdp": 2, "tp": 2}),
    ("4 layers of 256", DENSE, {"cp": 2, "fsdp": 2}),
    ("8 layers of 128", DEEP, {"pp": 4}),
    ("8 layers of 128", DEEP, {"pp": 2, "tp": 2}),
]


# --- what the processes do -------------------------------------------------------------------


def _batch(config: DecoderConfig, seq_len: int) -> TokenBatch:
    ids = torch.randint(config.vocab_size, (ROWS, seq_len))
    document = (torch.arange(seq_len) * 100 // (seq_len * 80)).expand(ROWS, -1).contiguous()
    return TokenBatch(ids, ids, document, ids.numel())


def _timed(act: Callable[[], object]) -> float:
    found = []
    for _ in range(WARMUP + STEPS):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found[WARMUP:])


def step_of(config: DecoderConfig, seq_len: int, ranks: Ranks, axes: str) -> tuple[float, float]:
    """Seconds of a step and of the optimizer in it.

    Args:
        axes: Of a process alone, the axes whose forms of the layers it takes.
    """
    model = Decoder(config)
    initialise(model, 0)
    for block in model.layers:
        if isinstance(block, Block) and ("tp" in axes or "cp" in axes):
            block.fuses_attention = False
            block.fuses_feed_forward = "tp" not in axes
    batch = _batch(config, seq_len)
    task: Task[Any, Any] = Task(
        lambda _: [batch] * MICRO_BATCHES, next_token_loss, lambda _: {}, lambda _: ()
    )
    task = apply_layout(model, task, ranks, seq_len)
    optimizer = build_optimizer(model, OptimizerConfig())
    spent: list[float] = []

    def step() -> None:
        compute_gradient(model, task, 0, 1.0, ranks=ranks)
        began = time.perf_counter()
        apply_gradient(optimizer, 1e-5)
        spent.append(time.perf_counter() - began)

    return _timed(step), min(spent[WARMUP:])


def messages() -> dict[str, float]:
    """Seconds of each kind of message between the ranks, small and large."""
    ranks, found = dist.get_world_size(), {}
    other = (dist.get_rank() + 1) % ranks
    for name, size in (("small", 1 << 8), ("large", 1 << 20)):
        whole, part, room = torch.ones(size), torch.ones(size // ranks), torch.ones(size)

        def both(whole: torch.Tensor = whole, room: torch.Tensor = room) -> None:
            pair = dist.P2POp(dist.isend, whole, other), dist.P2POp(dist.irecv, room, other)
            for work in dist.batch_isend_irecv(list(pair)):
                work.wait()

        parts = list(torch.ones(size).split(size // ranks))
        found[f"gather {name}"] = _timed(lambda: dist.all_gather(parts, part))  # noqa: B023
        found[f"reduce {name}"] = _timed(lambda: dist.reduce_scatter(part, parts))  # noqa: B023
        if ranks == 2:
            found[f"send {name}"] = _timed(both)
    memory = torch.ones(COPIED // 4)  # far larger than caches
    found["copy"] = _timed(lambda: memory.clone())
    return found


def rank_work(rank: int, port: int, ranks: int, job: tuple[Any, ...], tell: Connection) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_buffers()
    kind, *rest = job
    if kind == "messages":
        with processes(ParallelConfig(fsdp=ranks)):
            tell.send(messages())
    elif kind == "layout":
        config, parallel = rest
        with processes(parallel) as here:
            tell.send(step_of(config, min(SEQ_LEN, config.max_seq_len), here, ""))
    else:  # alone, beside others that are alone
        tell.send(step_of(*rest[:2], Ranks(), rest[2]))


def together(ranks: int, *job: Any) -> list[Any]:
    """What each of so many processes answers to a job."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["isoflop.training.pretrain"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = []
    for rank in range(ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=rank_work, args=(rank, port, ranks, job, theirs))
        process.start()
        members.append((process, ours))
    found = [ours.recv() for _, ours in members]
    for process, _ in members:
        process.join()
    return found


# --- the calibration -------------------------------------------------------------------------


def seconds_of(config: DecoderConfig, parallel: ParallelConfig) -> float:
    """Of a step in a layout, as the slowest rank saw it."""
    return float(max(step for step, _ in together(parallel.devices, "layout", config, parallel)))


def alone(config: DecoderConfig, parallel: ParallelConfig, seq_len: int) -> PassSeconds:
    """What a rank's share takes, with every core at work."""
    share, length = rank_share(config, parallel, seq_len)
    axes = " ".join(axis for axis in ("tp", "cp") if getattr(parallel, axis) > 1)
    half = replace(share, n_layers=share.n_layers // 2)
    whole, few = (
        [statistics.fmean(column) for column in zip(*answers, strict=True)]
        for answers in (
            together(usable_cores(), "alone", one, length, axes) for one in (share, half)
        )
    )
    passes, short = (step - optimizer for step, optimizer in (whole, few))
    layer = (passes - short) / MICRO_BATCHES / (share.n_layers - half.n_layers)
    outer = passes / MICRO_BATCHES - share.n_layers * layer
    return PassSeconds(layer, max(0.0, outer), whole[1] * parallel.tp)


def fixed_of(parallel: ParallelConfig, tiny: DecoderConfig) -> Fixed:
    """What an axis costs beside computation, from a model that computes next to nothing."""
    few, many = tiny, replace(tiny, n_layers=3 * tiny.n_layers)
    passes = MICRO_BATCHES // parallel.data_ranks
    each = [seconds_of(config, parallel) / passes for config in (few, many)]
    own = alone(tiny, parallel, tiny.max_seq_len)
    shared = max(1.0, parallel.devices / usable_cores())
    layer = (each[1] - each[0]) / (many.n_layers - few.n_layers) * parallel.pp
    rest = each[0] - few.n_layers / parallel.pp * layer
    return Fixed(
        max(0.0, layer / shared - own.layer),
        max(0.0, (rest - own.optimizer / passes) / shared - own.outer),
    )


def calibrated() -> RankSpeed:
    two, four = together(2, "messages")[0], together(4, "messages")[0]
    large = 4 << 20
    cores = usable_cores()

    def per_byte(kind: str, received: float) -> float:
        return (two[f"{kind} large"] - two[f"{kind} small"]) / received / max(1.0, 2 / cores)

    hop = (four["reduce small"] / max(1.0, 4 / cores) - two["reduce small"]) / 2
    axes = {
        axis: fixed_of(ParallelConfig(**{axis: 2}), TINY) for axis in ("fsdp", "tp", "cp", "pp")
    }
    axes["ep"] = fixed_of(ParallelConfig(fsdp=2, ep=2), TINY_EXPERTS)
    return RankSpeed(
        cores=cores,
        gathered_byte=per_byte("gather", large / 2),
        reduced_byte=per_byte("reduce", large / 2),
        sent_byte=per_byte("send", large),
        copied_byte=two["copy"] / COPIED,
        hop=max(0.0, hop),
        fixed=axes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose model and layout hold this")
    only = parser.parse_args().only
    speed = calibrated()
    print(speed, "\n")
    known: dict[Any, PassSeconds] = {}
    print("| model | layout | foretold s | measured s | ratio |\n|---|---|---|---|---|")
    for name, config, layout in PAIRS:
        words = " · ".join(f"{axis} {size}" for axis, size in layout.items())
        if only not in f"{name} {words}":
            continue
        parallel = ParallelConfig(**layout)
        key = (config, parallel.tp, parallel.cp)
        if key not in known:
            known[key] = alone(config, parallel, SEQ_LEN)
        told = rank_step_seconds(
            config,
            parallel,
            known[key],
            speed,
            micro_batch_tokens=ROWS * SEQ_LEN,
            micro_batches=MICRO_BATCHES // parallel.data_ranks,
        ).total
        seen = seconds_of(config, parallel)
        print(f"| {name} | {words} | {told:.3f} | {seen:.3f} | {told / seen:.2f} |", flush=True)


if __name__ == "__main__":
    main()
