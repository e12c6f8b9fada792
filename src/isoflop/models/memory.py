"""Bytes that one process holds while it trains a model in float32, by part; torch-free.

Not for mixed precision and layouts over devices (`planning/memory.py`). The formulas count what
the modules keep for their backward pass, as they are written, and a test counts the real thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.models.accounting import FLOAT32_BYTES, count_parameters
from isoflop.models.config import (
    BLOCK_QUERIES,
    FEWEST_FUSED,
    GATED,
    LONGEST_FUSED,
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    Recompute,
)
from isoflop.models.native.tiles import n_parts, takes_feed_forward, takes_output

GAPS, GAPS_AMONG_GRADIENTS = 0.15, 0.37
"""Gaps of glibc's heap as a share of the tensors without recomputation, which leaves smaller
buffers and as many gaps; measured over the forms (docs/benchmarks.md). The second: where attention
is not fused, and so makes many short-lived buffers, and gradients lie among them."""
GAPS_OF_TWO_STACKS = 0.23
"""More of them in an encoder–decoder, whose learned distances take as many buffers again."""


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds at its peak, in float32 with AdamW.

    Not counted: the interpreter and libraries, the data, and buffers of a single operation.
    """

    parameters: int
    gradients: int
    """Those held beside the activations; they take the room of these where a step has a single
    micro-batch."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the forward pass of one micro-batch keeps for its backward pass."""
    loss: int
    """The logits of one chunk, the last hidden states, and the gradients of these and of the
    output layer, which the chunked loss makes in its forward pass."""
    gaps: int
    """What a process holds besides on a CPU, in a heap that keeps freed buffers
    (`core.process.keep_freed_buffers`): room between buffers that nothing fits into."""

    @property
    def total(self) -> int:
        """All tensors at once."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.loss

    @property
    def process(self) -> int:
        """Memory of the process for training: tensors and gaps."""
        return self.total + self.gaps


@dataclass(frozen=True)
class _Kept:
    """Numbers kept for the backward pass: for each token, and besides."""

    per_token: float
    fixed: float
    attention: float = 0.0
    """Of `per_token`: one layer's first half."""
    feed_forward: float = 0.0
    """One layer's second half."""
    weights: float = 0.0
    """Of `fixed`: one layer's weights side by side; 0 where its attention is not fused."""


def memory_bytes(
    config: AnyConfig,
    *,
    micro_batch_tokens: int,
    seq_len: int,
    loss_chunk_tokens: int = 512,
    recompute: Sequence[Recompute] = (),
    native: bool = False,
    accumulates: bool = True,
) -> Memory:
    """Foretell the bytes of training, with several documents in every sequence (the worst case).

    Args:
        micro_batch_tokens: Tokens per forward and backward pass; of an encoder–decoder, on each
            of its sides.
        seq_len: Tokens per sequence.
        loss_chunk_tokens: Tokens whose logits the loss holds at once.
        recompute: What each layer of a decoder computes again in its backward pass; nothing when
            empty.
        native: Whether the CPU's native library is in use, which keeps no shares of attention.
        accumulates: Whether a step has several micro-batches, so that gradients are there while a
            forward pass is.
    """
    count = count_parameters(config)
    tokens, width = micro_batch_tokens, config.d_model
    ids = 8 * tokens  # for the gradient of the embedding
    if isinstance(config, EncoderConfig):
        whole = kept = between = _encoder(config, tokens, seq_len)
        ids = 3 * ids  # of positions and types too
    elif isinstance(config, EncoderDecoderConfig):
        whole = kept = between = _encoder_decoder(config, tokens, seq_len)
        ids = 2 * ids
    else:
        whole = _decoder(config, tokens, seq_len, native)
        kept, between = _recomputed(whole, config, recompute, tokens)
        ids = 2 * ids if config.positions == "learned" else ids
    chunk = min(loss_chunk_tokens, tokens) * config.vocab_size
    if native and takes_output(width, config.vocab_size) and not isinstance(config, EncoderConfig):
        # Parts of its gradient; the logits stay in the cores' caches.
        chunk = n_parts(tokens) * width * config.vocab_size
    parameters = FLOAT32_BYTES * count.params_total
    activations, unsaved, waiting = (
        round(FLOAT32_BYTES * (tokens * each.per_token + each.fixed)) + ids
        for each in (kept, whole, between)
    )
    last = FLOAT32_BYTES * width * (2 * tokens + config.vocab_size)
    # The chunk is gone when the first layer is computed again: the larger of the two counts.
    loss = last + max(0, FLOAT32_BYTES * chunk - (activations - waiting))
    share = GAPS_AMONG_GRADIENTS if accumulates and not whole.weights else GAPS
    share += GAPS_OF_TWO_STACKS if isinstance(config, EncoderDecoderConfig) else 0.0
    return Memory(
        parameters=parameters,
        gradients=parameters if accumulates else max(0, parameters - activations),
        optimizer=2 * parameters,
        activations=activations,
        loss=loss,
        gaps=round(share * (4 * parameters + unsaved + last + FLOAT32_BYTES * chunk)),
    )


def _decoder(config: DecoderConfig, tokens: int, seq_len: int, native: bool) -> _Kept:
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    heads, width = config.n_heads + config.n_kv_heads, config.d_model
    fixed = weights = 0.0
    short = FEWEST_FUSED <= seq_len <= LONGEST_FUSED
    biased = config.positions in ("alibi", "relative") or (config.window or seq_len) < seq_len
    fused_norm = width + 1  # the input normalised, and a scale per row
    if config.norm == "layer":
        # Its input, mean and scale; what it puts out, a projection keeps as its input.
        norm, last_norm = 2 * width + 2, width + 2
    else:
        norm, last_norm = 3 * width + 1, 2 * width + 1
    last_norm = fused_norm if short and config.norm == "rms" else last_norm
    # Widths that fill the native library's registers, or it leaves the work to torch.
    native_heads = native and config.head_dim % 32 == 0 and width % 16 == 0
    if short and config.is_fused and not biased and native_heads:
        norms = fused_norm
        attention: float = query + 2 * key + query + config.n_heads  # projected, mixed, log-sum-exp
        weights = width * (query + 2 * key)
        fixed = config.n_layers * weights
    elif short and config.is_fused and not biased:
        norms = fused_norm
        attention = (
            (query + key) + heads  # normalised, and scales
            + (query + key) + key  # rotated, and values
            + query  # mixed
            + config.n_heads * _keys_per_query(seq_len)  # shares of attention
        )  # fmt: skip
        # The weights of queries, keys and values side by side, and the gains of their norms.
        weights = width * (query + 2 * key) + heads * config.head_dim
        fixed = config.n_layers * weights
    else:
        norms = norm
        attention = (
            (query + key) + key  # rotated or projected, and values
            + query + config.n_heads  # mixed, and log-sum-exp
        )  # fmt: skip
        if config.positions == "rotary":
            attention += query  # rotated heads come out apart, and are copied side by side
        if config.qk_norm:
            attention += 2 * (query + key) + heads  # projected, normalised, and scales
        fixed = tokens * seq_len  # the document mask
        if config.positions == "alibi":
            fixed *= config.n_heads
        if config.positions == "relative":
            # Queries with either bias, scores with distances and shares; where distances lie.
            attention += 2 * query + config.n_heads * (2 * seq_len - 1)
            fixed += 2 * seq_len * seq_len
    feed_forward: float = _inner(config.activation) * config.d_ff
    attention += norms
    if config.experts is not None:
        feed_forward = _experts(config.experts, width) + norm
    elif (
        short
        and config.norm == "rms"
        and config.activation == "swiglu"
        and not (config.bias or config.post_norm)
    ):
        feed_forward += fused_norm - config.d_ff  # the gate's activation is not kept
        if native and takes_feed_forward(tokens, width, config.d_ff):
            feed_forward -= config.d_ff  # nor is what goes into the last product
    else:
        feed_forward += norm
    last = 0 if config.post_norm else last_norm
    per_token = config.n_layers * (attention + feed_forward) + last
    return _Kept(per_token, fixed, attention, feed_forward, weights)


def _recomputed(
    kept: _Kept, config: DecoderConfig, recompute: Sequence[Recompute], tokens: int
) -> tuple[_Kept, _Kept]:
    """The most that is kept at any time of the backward pass, which frees the last layers first
    and makes what was not kept again, one layer at a time; and what is kept between the passes."""
    if all(what == "none" for what in recompute):
        return kept, kept
    whole = kept.attention + kept.feed_forward
    holds = {  # between the passes; and on top of it, while the layer's turn has come
        "none": (whole, kept.weights, 0.0, 0.0),
        "attention": (
            config.d_model + kept.feed_forward, 0.0, kept.attention - kept.feed_forward,
            kept.weights,
        ),
        "block": (config.d_model, 0.0, whole, kept.weights),
    }  # fmt: skip
    last, shared = kept.per_token - config.n_layers * whole, kept.fixed
    shared -= config.n_layers * kept.weights
    sums, fixed, most = last, shared, _Kept(last, shared)
    for what in recompute:
        between, weights, turn, turn_weights = holds[what]
        sums, fixed = sums + between, fixed + weights
        now = _Kept(sums + max(0.0, turn), fixed + turn_weights)
        most = max(most, now, key=lambda k: tokens * k.per_token + k.fixed)
    return most, _Kept(sums, fixed)


def _inner(activation: str) -> int:
    """Numbers kept per unit of inner width: gate, its activation, up and their product; before
    and after GELU; after ReLU."""
    if activation in GATED:
        return 4
    return 1 if activation == "relu" else 2


def _experts(experts: ExpertsConfig, width: int) -> float:
    """Per token: its row once per choice; gate, its activation, up, their product and that times
    the share; shares, orders and probabilities."""
    routed = experts.top_k * (width + 5 * experts.d_expert)
    router = 3 * experts.n_experts + 12 * experts.top_k
    return routed + router + 4 * experts.n_shared * experts.d_expert


def _encoder(config: EncoderConfig, tokens: int, seq_len: int) -> _Kept:
    width = config.d_model
    # A norm keeps its input, mean and scale; what it puts out, the projections keep.
    layer = 2 * (2 * width + 2) + 4 * width + config.n_heads + 2 * config.d_ff
    embeddings = width + 2  # as above, less what the last norm puts out
    return _Kept(config.n_layers * layer + embeddings, tokens * seq_len)


def _encoder_decoder(config: EncoderDecoderConfig, tokens: int, seq_len: int) -> _Kept:
    width, heads = config.d_model, config.n_heads * config.head_dim
    norm = 3 * width + 1
    # Queries, keys, values and the mixed; a learned bias has a gradient, for which the shares are
    # kept, without one their log-sum-exp.
    biased, cross = 4 * heads + config.n_heads * seq_len, 4 * heads + config.n_heads
    inner = _inner(config.activation) * config.d_ff
    encoder = config.n_layers * (2 * norm + biased + inner) + norm
    decoder = config.n_decoder_layers * (3 * norm + biased + cross + inner) + norm - width
    # Masks of documents, one in numbers and one in bytes, and the buckets of distances.
    return _Kept(encoder + decoder, tokens * seq_len * 1.25 + 4.25 * seq_len * seq_len)


def _keys_per_query(seq_len: int) -> float:
    """Keys that a query is multiplied with on average, block by block of queries."""
    ends = [min(s + BLOCK_QUERIES, seq_len) for s in range(0, seq_len, BLOCK_QUERIES)]
    starts = [0, *ends[:-1]]
    return sum((e - s) * e for s, e in zip(starts, ends, strict=True)) / seq_len
