"""Bytes that each rank holds while it trains in float32, by part, under a layout.

For `dp`, `fsdp`, `ep` and `pp`. Not for mixed precision on devices to be bought
(`planning/memory.py`), nor for one process (`models/memory.py`), whose counts of activations are
used here.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.models.accounting import FLOAT32_BYTES, count_parameters
from isoflop.models.config import DecoderConfig
from isoflop.models.memory import memory_bytes
from isoflop.training.parallel.recipe import ParallelConfig

GATHERED_BLOCKS = 2
"""Layers whose weights are whole at once: the one at work and the next."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of the tensors of the fullest rank at the peak of a step."""

    parameters: int
    """Its own part."""
    gathered: int
    """Weights of others that it holds for a pass."""
    gradients: int
    """Its own part, and those of whole layers that are still to be reduced."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """Of all micro-batches under way."""
    loss: int
    """Logits of one chunk, the last hidden states, their gradients and that of the output layer."""

    @property
    def total(self) -> int:
        """All of them at once."""
        return int(sum(vars(self).values()))


@dataclass(frozen=True)
class Weights:
    """Bytes of weights in float32, of what tensor parallel leaves of them."""

    block: int
    """Of one layer, experts left out."""
    experts: int
    """Of one layer."""
    outer: int
    """Outside layers, on a stage that has some."""

    def layer(self, parallel: ParallelConfig) -> int:
        """Of one layer, with the experts that are dealt to a rank, before they are sharded."""
        return self.block + self.experts // parallel.ep

    def passing(self, parallel: ParallelConfig) -> int:
        """Of one layer, what is gathered for a pass: all but experts that one rank alone has."""
        dealt = parallel.dp * parallel.fsdp == parallel.ep
        return self.block + (0 if dealt else self.experts // parallel.ep)


def rank_memory_bytes(
    config: DecoderConfig,
    parallel: ParallelConfig,
    *,
    micro_batch_tokens: int,
    seq_len: int,
    micro_batches: int,
    native: bool = False,
) -> RankMemory:
    """Foretell the bytes of the fullest rank, which is on the first stage or on the last.

    Args:
        micro_batch_tokens: Tokens per forward and backward pass.
        seq_len: Tokens per sequence.
        micro_batches: Passes of a rank in each step, two or more.
        native: Whether the CPU's native library is in use.

    Raises:
        ValueError: The layout has tensor or context parallel or is interleaved: not counted.
    """
    if parallel.tp * parallel.cp * parallel.interleave > 1:
        raise ValueError("memory is foretold for dp, fsdp, ep and pp, not for tp, cp or interleave")
    alone = memory_bytes(
        config, micro_batch_tokens=micro_batch_tokens, seq_len=seq_len, native=native
    )
    weights = weights_of(config, parallel)
    under_way = micro_batches if parallel.schedule == "gpipe" else min(parallel.pp, micro_batches)
    if parallel.pp == 1:
        return _held(weights, config, parallel, alone.activations, alone.loss)
    one = alone.activations / parallel.pp
    ahead = 1 if parallel.schedule == "1f1b" else micro_batches
    return max(
        _held(weights, config, parallel, under_way * one, 0),
        _held(weights, config, parallel, ahead * one, alone.loss),
        key=lambda memory: memory.total,
    )


def weights_of(config: DecoderConfig, parallel: ParallelConfig) -> Weights:
    """What a rank's part is cut from."""
    count = count_parameters(config)
    block = (count.attention + count.feed_forward + count.norm) // config.n_layers
    experts = 0
    if config.experts is not None:
        experts = 3 * config.experts.n_experts * config.experts.d_expert * config.d_model
    matrix = config.vocab_size * config.d_model
    matrices = 1 if config.tie_embeddings or parallel.pp > 1 else 2
    parts = (block - experts, experts, matrices * matrix)
    return Weights(*(FLOAT32_BYTES * n // parallel.tp for n in parts))


def _held(
    weights: Weights,
    config: DecoderConfig,
    parallel: ParallelConfig,
    activations: float,
    loss: int,
) -> RankMemory:
    blocks = config.n_layers // parallel.pp
    # What this rank's layers weigh, of experts those dealt to it.
    layer = weights.layer(parallel)
    stage = blocks * layer + weights.outer
    own = (blocks * (weights.block + weights.experts) + weights.outer) // parallel.fsdp
    gathers = parallel.dp * parallel.fsdp > 1
    # Under a pipeline, weights and gradients of whole layers stay until the step's last pass.
    by_layer = parallel.fsdp > 1 and parallel.zero == 3 and parallel.pp == 1
    passing = weights.passing(parallel)
    gathered = weights.outer + passing * (min(GATHERED_BLOCKS, blocks) if by_layer else blocks)
    once = gathers and (parallel.zero == 1 or parallel.fsdp == 1 or parallel.pp > 1)
    return RankMemory(
        parameters=own,
        gathered=gathered if gathers else 0,
        gradients=stage if once else own,
        optimizer=2 * own,
        activations=round(activations),
        loss=loss,
    )
