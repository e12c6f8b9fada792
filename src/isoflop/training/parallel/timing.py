"""Seconds of a training step of processes that share a machine's cores, foretold by layout.

For float32 over gloo, from what was measured of one process, of messages, and of each axis's own
work on a small model. Not for devices to be bought (`planning/timing.py`, whose terms these are:
computation, traffic per axis, the pipeline's ends), nor for measuring
(`benchmarks/parallel_steps.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from isoflop.models.accounting import FLOAT32_BYTES
from isoflop.models.config import DecoderConfig
from isoflop.training.parallel.memory import Weights, weights_of
from isoflop.training.parallel.recipe import ParallelConfig


@dataclass(frozen=True)
class PassSeconds:
    """Of one process that trains the share of a model that a rank has, with all cores at work."""

    layer: float
    """Of one layer, a micro-batch forward and backward."""
    outer: float
    """Of what is outside layers: embedding, last norm, output layer and loss."""
    optimizer: float
    """Of clipping and AdamW, a step."""


@dataclass(frozen=True)
class Fixed:
    """What an axis costs whatever the width, in seconds: calls, and the latency of messages."""

    layer: float = 0.0
    """A layer and pass."""
    each_pass: float = 0.0
    """A pass."""


@dataclass(frozen=True)
class RankSpeed:
    """What was measured of a machine, of two ranks."""

    cores: int
    gathered_byte: float
    """Seconds per byte that a rank receives in an all-gather."""
    reduced_byte: float
    """The same in a reduce-scatter."""
    sent_byte: float
    """The same of a message to one rank."""
    copied_byte: float
    """Seconds per byte copied in memory."""
    hop: float
    """Seconds that each further rank adds to a small collective."""
    fixed: Mapping[str, Fixed]
    """By axis; `cp` and `ep` with the sharding that comes with them."""


@dataclass(frozen=True)
class RankSeconds:
    """Seconds of a step."""

    computation: float
    """Of a rank of the busiest stage."""
    traffic: float
    """Its messages and copies, and what an axis costs besides."""
    ends: float
    """While the pipeline fills and drains."""
    sharing: float
    """While cores work for other ranks, where there are more ranks than cores."""

    @property
    def total(self) -> float:
        """The step."""
        return float(sum(vars(self).values()))


def rank_share(
    config: DecoderConfig, parallel: ParallelConfig, seq_len: int
) -> tuple[DecoderConfig, int]:
    """The model and the positions of a sequence that one process has to compute as much with as a
    rank: heads and inner width cut by `tp`, positions by `cp`. Stages have some layers of it."""
    tp = parallel.tp
    share = replace(
        config,
        n_heads=config.n_heads // tp,
        n_kv_heads=config.n_kv_heads // tp,
        d_ff=config.d_ff // tp,
    )
    return share, seq_len // parallel.cp


def rank_step_seconds(
    config: DecoderConfig,
    parallel: ParallelConfig,
    compute: PassSeconds,
    speed: RankSpeed,
    *,
    micro_batch_tokens: int,
    micro_batches: int,
) -> RankSeconds:
    """Foretell a step, in the schedule 1F1B.

    Messages cost the ranks' own cores, so nothing hides them. Ranks that wait leave their cores to
    others: a step lasts as long as its longest chain of passes, or as all work shared by the cores.

    Args:
        config: Of the whole model.
        compute: Of the share of a rank (`rank_share`).
        micro_batch_tokens: Tokens per forward and backward pass, over all ranks of `cp` and `tp`.
        micro_batches: Passes of a rank in each step.

    Raises:
        ValueError: The layout is interleaved: not counted.
    """
    if parallel.interleave > 1:
        raise ValueError("seconds are foretold for stages of one piece")
    stages = parallel.pp
    blocks = config.n_layers // stages
    weights = weights_of(config, parallel)
    tokens = micro_batch_tokens // parallel.cp
    # The loss is at the last stage; what the embedding takes is little. Positions of it are shared.
    outer = compute.outer / parallel.tp
    computed = [blocks * compute.layer] * stages
    computed[-1] += outer
    moved = _each_pass(config, parallel, weights, speed, tokens, blocks)
    each = [seconds + moved for seconds in computed]
    held = parallel.fsdp * parallel.cp * stages
    once = compute.optimizer / held + _once(parallel, weights, speed, blocks, micro_batches)
    longest = max(each)
    chain = micro_batches * longest + sum(each) - longest + once
    work = (micro_batches * sum(each) / stages + once) * parallel.devices / speed.cores
    computation = micro_batches * max(computed) + compute.optimizer / held
    return RankSeconds(
        computation=computation,
        traffic=micro_batches * longest + once - computation,
        ends=sum(each) - longest,
        sharing=max(0.0, work - chain),
    )


def _each_pass(
    config: DecoderConfig,
    parallel: ParallelConfig,
    weights: Weights,
    speed: RankSpeed,
    tokens: int,
    blocks: int,
) -> float:
    """Seconds of a pass that are no computation."""
    axes = [axis for axis in ("tp", "pp", "ep", "cp") if getattr(parallel, axis) > 1]
    if parallel.dp * parallel.fsdp > 1 and not {"ep", "cp"} & set(axes):
        axes.append("fsdp")
    fixed = [speed.fixed.get(axis, Fixed()) for axis in axes]
    seconds = sum(blocks * each.layer + each.each_pass for each in fixed)
    layer, outer = weights.passing(parallel), weights.outer
    gathers, reduces = _gathers(parallel)
    shard = parallel.fsdp * parallel.cp
    held = blocks * layer + outer
    seconds += _collective(
        gathers * blocks * layer + min(gathers, 1) * outer, shard, speed.gathered_byte, speed
    )
    seconds += _collective(reduces * held, shard, speed.reduced_byte, speed)
    seconds += 3 * blocks * max(0, shard - 2) * speed.hop * min(1, gathers)
    if reduces:  # replicas add up what each of their shards has
        seconds += 2 * held / shard * _ring(parallel.dp) * speed.reduced_byte
    stream = FLOAT32_BYTES * tokens * config.d_model
    if parallel.tp > 1:  # 4 gathers and 4 scatters of the stream in a layer, and the output matrix
        pairs = 4 * blocks * stream + outer * parallel.tp
        link = speed.gathered_byte + speed.reduced_byte
        seconds += pairs * _ring(parallel.tp) * link
        seconds += 8 * blocks * max(0, parallel.tp - 2) * speed.hop
    if parallel.pp > 1:
        seconds += 2 * stream / parallel.tp * speed.sent_byte
    if parallel.cp > 1:  # keys and values, and behind them their gradients
        keys = 2 * FLOAT32_BYTES * tokens * config.n_kv_heads * config.head_dim / parallel.tp
        rounds = 3 * (parallel.cp - 1) + parallel.cp + 1
        seconds += blocks * rounds * keys * speed.sent_byte
    if parallel.ep > 1 and config.experts is not None:  # there and back, and their gradients
        rows = config.experts.top_k * stream
        seconds += 4 * blocks * rows * _ring(parallel.ep) * speed.sent_byte
    return seconds


def _gathers(parallel: ParallelConfig) -> tuple[int, int]:
    """How often layers' weights are gathered, and their gradients reduced, in a pass."""
    if parallel.fsdp * parallel.cp == 1 or parallel.zero == 1:
        return 0, 0
    if parallel.pp > 1:  # gradients once a step
        return 1, 0
    return (2, 1) if parallel.zero == 3 else (1, 1)


def _once(
    parallel: ParallelConfig, weights: Weights, speed: RankSpeed, blocks: int, micro_batches: int
) -> float:
    """Seconds of a step's traffic that comes once."""
    shard = parallel.fsdp * parallel.cp
    held = blocks * weights.passing(parallel) + weights.outer
    gathers, reduces = _gathers(parallel)
    seconds = 0.0
    if gathers == 0:
        seconds += _collective(held, shard, speed.gathered_byte, speed)
    if reduces == 0:
        seconds += _collective(held, shard, speed.reduced_byte, speed)
        seconds += 2 * held / shard * _ring(parallel.dp) * speed.reduced_byte
        seconds += speed.copied_byte * held * (parallel.dp > 1)
    return seconds


def _collective(size: float, ranks: int, link_byte: float, speed: RankSpeed) -> float:
    """Seconds of gathering or reducing tensors of so many bytes in all, which are copied once."""
    return size * (_ring(ranks) * link_byte + speed.copied_byte) if ranks > 1 else 0.0


def _ring(ranks: int) -> float:
    """Share of a tensor that each rank receives."""
    return (ranks - 1) / ranks
