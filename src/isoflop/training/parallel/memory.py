"""Bytes that each rank holds while it trains in float32, by part, under a layout.

Not for mixed precision on devices to be bought (`planning/memory.py`), nor for one process
(`models/memory.py`), whose counts of activations are used here where layers are not cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.models.accounting import FLOAT32_BYTES, count_parameters
from isoflop.models.config import DecoderConfig
from isoflop.models.memory import memory_bytes
from isoflop.models.native.tiles import n_parts, takes_feed_forward, takes_output
from isoflop.training.parallel.recipe import ParallelConfig

LOSS_CHUNK_TOKENS = 512
"""Tokens whose logits the loss holds at once on a CPU."""
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
        ValueError: The layout is interleaved: not counted.
    """
    if parallel.interleave > 1:
        raise ValueError("memory is foretold for stages of one piece")
    if parallel.tp * parallel.cp > 1:
        kept = _kept_of_cut(config, parallel, micro_batch_tokens, seq_len, native)
        loss = _loss_of_cut(config, parallel, micro_batch_tokens, native)
    else:
        alone = memory_bytes(
            config, micro_batch_tokens=micro_batch_tokens, seq_len=seq_len, native=native
        )
        kept, loss = alone.activations, alone.loss
    weights = weights_of(config, parallel)
    under_way = micro_batches if parallel.schedule == "gpipe" else min(parallel.pp, micro_batches)
    if parallel.pp == 1:
        return _held(weights, config, parallel, kept, loss)
    one = kept / parallel.pp
    ahead = 1 if parallel.schedule == "1f1b" else micro_batches
    return max(
        _held(weights, config, parallel, under_way * one, 0),
        _held(weights, config, parallel, ahead * one, loss),
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


def _kept_of_cut(
    config: DecoderConfig, parallel: ParallelConfig, micro_tokens: int, seq_len: int, native: bool
) -> int:
    """What layers of the default form keep of a micro-batch where tensors or sequences are cut.

    Of tensor parallel all that is between gather and scatter is that of all positions and some
    columns; what is before and after is that of some positions, but for what projections read. Of
    context parallel the attention is not in its fused form.
    """
    tp, width, inner = parallel.tp, config.d_model, config.d_ff
    tokens = micro_tokens // parallel.cp
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    # Rotated queries and keys, values; what they mix, as it came and side by side; its log-sum-exp.
    attention = (query + key) + key + 2 * query + config.n_heads
    # Projected, normalised, and scales.
    attention += 2 * (query + key) + config.n_heads + config.n_kv_heads
    if tp > 1:  # both norms' inputs and results; the gathered results
        layer = (attention + 4 * inner) / tp + 2 * ((2 * width + 1) / tp + width)
        last_norm, mask = (2 * width + 1) / tp, FLOAT32_BYTES
    else:
        layer = attention + 3 * width + 1 + 3 * inner + width + 1
        if native and takes_feed_forward(tokens, width, inner):
            layer -= inner
        last_norm, mask = width + 1, 1
    numbers = tokens * (config.n_layers * layer + last_norm)
    return round(FLOAT32_BYTES * numbers) + mask * tokens * seq_len + 8 * micro_tokens


def _loss_of_cut(
    config: DecoderConfig, parallel: ParallelConfig, micro_tokens: int, native: bool
) -> int:
    """The loss of the positions of a rank, for which tensor parallel gathers the output matrix."""
    tokens = micro_tokens // (parallel.cp * parallel.tp)
    width, matrix = config.d_model, config.d_model * config.vocab_size
    chunk = min(LOSS_CHUNK_TOKENS, tokens) * config.vocab_size
    if native and takes_output(width, config.vocab_size):
        chunk = n_parts(tokens) * matrix
    gathered = matrix if parallel.tp > 1 else 0
    return FLOAT32_BYTES * (2 * tokens * width + matrix + chunk + gathered)


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
    shard = parallel.fsdp * parallel.cp
    own = (blocks * (weights.block + weights.experts) + weights.outer) // shard
    gathers = parallel.dp * shard > 1
    # Under a pipeline, weights and gradients of whole layers stay until the step's last pass.
    by_layer = shard > 1 and parallel.zero == 3 and parallel.pp == 1
    passing = weights.passing(parallel)
    gathered = weights.outer + passing * (min(GATHERED_BLOCKS, blocks) if by_layer else blocks)
    once = gathers and (parallel.zero == 1 or shard == 1 or parallel.pp > 1)
    return RankMemory(
        parameters=own,
        gathered=gathered if gathers else 0,
        gradients=stage if once else own,
        optimizer=2 * own,
        activations=round(activations),
        loss=loss,
    )
