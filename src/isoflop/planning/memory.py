"""Bytes that each device holds while it trains, by part, under a layout; formulas, not measurement.

Not for one process in float32, which `models.memory.memory_bytes` counts to the percent.
Mixed precision: master weights, gradients and both moments in float32, work in bfloat16. Shape
legend of the comments: w width, q and k summed widths of query and of key heads, f feed-forward
width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from isoflop.models.accounting import count_parameters
from isoflop.models.config import DecoderConfig
from isoflop.planning.layout import Layout

HALF, FULL = 2, 4
LOSS_CHUNK_TOKENS = 4096
"""Tokens whose logits the fused loss holds at once."""
GATHERED_BLOCKS = 2
"""Blocks whose parameters are whole at once under sharding: the one at work and the next."""
USABLE = 0.93
"""Share of a device's memory to plan with; the rest is for the CUDA context (0.5 to 1 GiB), NCCL's
buffers and fragmentation."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on the fullest device at the peak of a step."""

    parameters: int
    """Master weights, and the bfloat16 weights at hand."""
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the forward passes under way keep for their backward passes."""
    loss: int
    """Logits of one chunk, the last hidden states and their gradient."""

    @property
    def total(self) -> int:
        """All of them at once."""
        return int(sum(vars(self).values()))

    def to_dict(self) -> dict[str, int]:
        """The memory document of a plan."""
        return {**vars(self), "total": self.total}


def activation_bytes_per_token(config: DecoderConfig, recompute: str) -> int:
    """Bytes that one block keeps of one token between its forward and its backward pass.

    Counted as Korthikanti et al. 2022 do (what each operation saves, 2 bytes a number), for blocks
    with RMSNorm, grouped-query attention in a fused kernel and SwiGLU, so without their dropout
    masks and without 5·a·s/h of attention scores. `none`: both norms' inputs and outputs (4w);
    queries and keys before and after norm and rotation, values, the mixed values (3q + 3k); gate,
    up and their product (3f). `selective`: results of matrix products and attention (2w + 2q + 2k
    + 2f). `full`: the block's input (w; their 2sbh).
    """
    width, inner = config.d_model, config.d_ff
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    row_sums = FULL * config.n_heads  # log-sum-exp of the attention kernel, float32
    if recompute == "full":
        return HALF * width
    if recompute == "selective":
        return HALF * (2 * width + 2 * query + 2 * key + 2 * inner) + row_sums
    return HALF * (4 * width + 3 * query + 3 * key + 3 * inner) + row_sums


def device_memory(
    config: DecoderConfig,
    layout: Layout,
    seq_len: int,
    micro_steps: int,
    *,
    loss_chunk_tokens: int = LOSS_CHUNK_TOKENS,
) -> DeviceMemory:
    """Bytes on the fullest device: the first pipeline stage, or the last.

    Args:
        seq_len: Tokens per sequence.
        micro_steps: Passes of a step; a pipeline of p stages keeps min(p, passes) of them in
            flight on its first stage.
        loss_chunk_tokens: Tokens whose logits are held at once; all of them for a loss that is
            not fused.
    """
    first = _stage(config, layout, seq_len, micro_steps, loss_chunk_tokens, last=layout.pp == 1)
    if layout.pp == 1:
        return first
    end = _stage(config, layout, seq_len, 1, loss_chunk_tokens, last=True)
    return max(first, end, key=lambda memory: memory.total)


def _stage(
    config: DecoderConfig,
    layout: Layout,
    seq_len: int,
    micro_steps: int,
    loss_chunk_tokens: int,
    *,
    last: bool,
) -> DeviceMemory:
    block, matrix = block_params(config), config.vocab_size * config.d_model
    matrices = 1 if layout.pp > 1 or config.tie_embeddings else 2
    blocks = -(-config.n_layers // layout.pp)
    own = (blocks * block + matrices * matrix) // layout.tp
    shard = layout.fsdp * layout.cp
    tokens = layout.micro_batch * seq_len // layout.cp
    in_flight = 1 if last and layout.pp > 1 else min(layout.pp, micro_steps)
    if layout.zero == 3 and shard > 1:
        at_hand = min(own, (GATHERED_BLOCKS * block + matrices * matrix) // layout.tp)
        parameters = FULL * own // shard + HALF * at_hand
        gradients = FULL * own // shard + HALF * at_hand
    else:
        parameters = HALF * own + FULL * own // shard
        gradients = FULL * own
    passes: float = in_flight
    if layout.interleave > 1 and not last:  # (Narayanan et al. 2021, section 2.2)
        passes += (layout.pp - 1) / layout.interleave
    kept = passes * blocks * activation_bytes_per_token(config, layout.recompute)
    if layout.recompute != "none":  # the block at work is whole once more
        kept += activation_bytes_per_token(config, "none")
    chunk = min(loss_chunk_tokens, tokens)
    logits = chunk * config.vocab_size * (HALF + FULL) // layout.tp
    hidden = 2 * HALF * tokens * config.d_model // layout.tp
    return DeviceMemory(
        parameters=parameters,
        gradients=gradients,
        optimizer=2 * FULL * own // shard,
        activations=int(kept * tokens / layout.tp),
        loss=logits + hidden if last else 0,
    )


@lru_cache(maxsize=256)
def block_params(config: DecoderConfig) -> int:
    """Parameters of one block."""
    count = count_parameters(config)
    return (count.attention + count.feed_forward + count.norm) // config.n_layers
