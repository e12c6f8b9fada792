"""What a decoder costs: parameters by role, FLOPs per token, bytes of memory; torch-free.

Not for measured times or speeds (`core/hardware.py`). Every formula is for the modules of
`decoder.py` as they are written, and a test counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.models.config import BLOCK_QUERIES, FEWEST_FUSED, LONGEST_FUSED, DecoderConfig

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by role. The roles add up to the number of distinct parameters."""

    input_embedding: int
    """The embedding matrix; 0 when tied, for then it is the output layer's."""
    attention: int
    """The four projections; the small norms of queries and keys are under `norm`."""
    feed_forward: int
    norm: int
    """Gains of all norms."""
    output: int
    """The output layer, which is also the embedding matrix when tied."""

    @property
    def params(self) -> int:
        """All weights except input (and position) embeddings: the N of scaling laws.

        A tied matrix counts once, as the output layer: that is where its FLOPs are.
        """
        return self.params_total - self.input_embedding

    @property
    def params_total(self) -> int:
        """Every distinct parameter."""
        return self.input_embedding + self.attention + self.feed_forward + self.norm + self.output


def count_parameters(config: DecoderConfig) -> ParameterCount:
    """Count the parameters of a decoder from its shape."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    matrix = config.vocab_size * config.d_model
    return ParameterCount(
        input_embedding=0 if config.tie_embeddings else matrix,
        attention=config.n_layers * config.d_model * 2 * (query + key),
        feed_forward=config.n_layers * config.d_model * 3 * config.d_ff,
        norm=config.n_layers * 2 * (config.d_model + config.head_dim) + config.d_model,
        output=matrix,
    )


@dataclass(frozen=True)
class FlopCount:
    """Matrix-product FLOPs of one token in the forward pass (a multiply-add is two).

    Norms, rotations, softmax and other elementwise work are left out, as in Kaplan et al. 2020:
    they are a few percent and bound by memory, not arithmetic.
    """

    attention_projections: int
    attention_scores: int
    """Queries times keys and weights times values, averaged over the positions of a sequence.
    Causal: half of the full T × T square, which is what the model needs; a kernel that computes
    the whole square does twice this."""
    feed_forward: int
    output: int
    """The output layer; the lookup of input embeddings multiplies nothing."""

    @property
    def forward(self) -> int:
        """FLOPs per token of a forward pass."""
        return self.attention_projections + self.attention_scores + self.feed_forward + self.output

    @property
    def training(self) -> int:
        """FLOPs per token of forward and backward: each product of the forward pass has two in
        the backward pass, one for each factor's gradient. Work done again to save memory
        (attention scores in a fused kernel, recomputed activations) is not counted."""
        return 3 * self.forward


def flops_per_token(config: DecoderConfig, seq_len: int) -> FlopCount:
    """Count FLOPs per token at sequences of `seq_len` tokens, each one document."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return FlopCount(
        attention_projections=config.n_layers * 2 * config.d_model * 2 * (query + key),
        # 2 products × 2 FLOPs × seq_len / 2 earlier positions on average.
        attention_scores=config.n_layers * 2 * seq_len * query,
        feed_forward=config.n_layers * 2 * config.d_model * 3 * config.d_ff,
        output=2 * config.d_model * config.vocab_size,
    )


# --- memory --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds at its peak, in float32 with AdamW.

    Not counted: the interpreter and libraries, the data, and buffers of a single operation.
    """

    parameters: int
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the forward pass of one micro-batch keeps for its backward pass."""
    loss: int
    """The logits of one chunk, the last hidden states, and the gradients of these and of the
    output layer, which the chunked loss makes in its forward pass."""

    @property
    def total(self) -> int:
        """All of them at once."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.loss


def memory_bytes(
    config: DecoderConfig,
    *,
    micro_batch_tokens: int,
    seq_len: int,
    loss_chunk_tokens: int = 512,
) -> Memory:
    """Foretell the bytes of training, with several documents in every sequence (the worst case).

    Args:
        micro_batch_tokens: Tokens per forward and backward pass.
        seq_len: Tokens per sequence.
        loss_chunk_tokens: Tokens whose logits the loss holds at once.
    """
    count = count_parameters(config)
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    heads = config.n_heads + config.n_kv_heads
    width = config.d_model
    if FEWEST_FUSED <= seq_len <= LONGEST_FUSED:
        # Numbers per token and layer. A norm keeps the input normalised and one scale per row.
        norm = last_norm = width + 1
        attention = (
            (query + key) + heads  # normalised, and scales
            + (query + key) + key  # rotated, and values
            + query  # mixed
            + config.n_heads * _keys_per_query(seq_len)  # shares of attention
        )  # fmt: skip
        # The weights of queries, keys and values side by side, and the gains of their norms.
        fixed = config.n_layers * (width * (query + 2 * key) + heads * config.head_dim)
    else:
        # A norm keeps its input too; what it puts out, a projection keeps as its input.
        norm, last_norm = 3 * width + 1, 2 * width + 1
        attention = (
            (query + 2 * key)  # projected; values stay here
            + (query + key) + heads  # normalised, and scales
            + (query + key)  # rotated
            + 2 * query + config.n_heads  # mixed, as heads and side by side; log-sum-exp
        )  # fmt: skip
        fixed = micro_batch_tokens * seq_len  # the document mask
    feed_forward = 4 * config.d_ff  # gate, silu(gate), up, their product
    per_token = config.n_layers * (2 * norm + attention + feed_forward) + last_norm
    ids = 8 * micro_batch_tokens  # for the gradient of the embedding
    chunk = min(loss_chunk_tokens, micro_batch_tokens) * config.vocab_size
    return Memory(
        parameters=FLOAT32_BYTES * count.params_total,
        gradients=FLOAT32_BYTES * count.params_total,
        optimizer=2 * FLOAT32_BYTES * count.params_total,
        activations=round(FLOAT32_BYTES * (micro_batch_tokens * per_token + fixed)) + ids,
        loss=FLOAT32_BYTES * (chunk + width * (2 * micro_batch_tokens + config.vocab_size)),
    )


def _keys_per_query(seq_len: int) -> float:
    """Keys that a query is multiplied with on average, block by block of queries."""
    ends = [min(s + BLOCK_QUERIES, seq_len) for s in range(0, seq_len, BLOCK_QUERIES)]
    starts = [0, *ends[:-1]]
    return sum((e - s) * e for s, e in zip(starts, ends, strict=True)) / seq_len


def kv_bytes_per_token(config: DecoderConfig, bytes_per_value: int = FLOAT32_BYTES) -> int:
    """Bytes of keys and values that generation keeps for each token it has seen."""
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * bytes_per_value
