"""What a model costs: parameters by role, FLOPs, bytes of its cache; torch-free.

Not for the memory of training (`memory.py`) nor for measured times (`core/hardware.py`). Every
formula is for the modules as they are written, and a test counts them.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.models.config import (
    GATED,
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
)

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by role. The roles but the last add up to the number of distinct parameters."""

    input_embedding: int
    """The embedding matrix; 0 when tied, for then it is the output layer's."""
    position_embedding: int
    """Learned rows per position, and per token type."""
    attention: int
    """Projections with their biases; the small norms of queries and keys are under `norm`."""
    feed_forward: int
    """Dense feed-forward parts, or all experts and their routers."""
    norm: int
    """Gains and biases of all norms."""
    output: int
    """The output layer, which is also the embedding matrix when tied; other heads."""
    inactive: int = 0
    """Those of `feed_forward` that a token does not use: experts it is not sent to."""

    @property
    def params(self) -> int:
        """All weights except input (and position) embeddings: the N of scaling laws.

        A tied matrix counts once, as the output layer: that is where its FLOPs are.
        """
        return self.params_total - self.input_embedding - self.position_embedding

    @property
    def params_total(self) -> int:
        """Every distinct parameter."""
        inner = self.attention + self.feed_forward + self.norm
        return self.input_embedding + self.position_embedding + inner + self.output

    @property
    def active(self) -> int:
        """Those of `params` that one token uses: the N of a mixture of experts in 6ND."""
        return self.params - self.inactive

    @property
    def active_total(self) -> int:
        """Every distinct parameter that one token uses, as published ("A3B" of 30B-A3B)."""
        return self.params_total - self.inactive

    @property
    def non_embedding(self) -> int:
        """Neither embeddings nor output layer (Kaplan et al. 2020)."""
        return self.params - self.output


def count_parameters(config: AnyConfig) -> ParameterCount:
    """Count the parameters of a model from its shape."""
    if isinstance(config, EncoderConfig):
        return _count_encoder(config)
    if isinstance(config, EncoderDecoderConfig):
        return _count_encoder_decoder(config)
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    width, depth = config.d_model, config.n_layers
    attention = 2 * width * (query + key)
    if config.bias or config.qkv_bias:
        attention += query + 2 * key
    if config.bias:
        attention += width
    if config.positions == "relative":
        attention += width * query + 2 * query
    feed_forward, inactive = _feed_forward(config), 0
    if config.experts is not None:
        expert = 3 * width * config.experts.d_expert
        at_work = config.experts.top_k + config.experts.n_shared
        inactive = (config.experts.n_experts - config.experts.top_k) * expert
        feed_forward = at_work * expert + inactive + config.experts.n_experts * width
    per_width = 2 if config.norm == "layer" else 1
    norms = 2 * depth + (0 if config.post_norm else 1)
    matrix = config.vocab_size * width
    return ParameterCount(
        input_embedding=0 if config.tie_embeddings else matrix,
        position_embedding=config.max_seq_len * width if config.positions == "learned" else 0,
        attention=depth * attention,
        feed_forward=depth * feed_forward,
        norm=per_width * norms * width + (2 * depth * config.head_dim if config.qk_norm else 0),
        output=matrix,
        inactive=depth * inactive,
    )


def _feed_forward(config: DecoderConfig | EncoderDecoderConfig) -> int:
    """Parameters of one dense feed-forward part."""
    gates = 2 if config.activation in GATED else 1
    biased = isinstance(config, DecoderConfig) and config.bias
    biases = gates * config.d_ff + config.d_model if biased else 0
    return (gates + 1) * config.d_model * config.d_ff + biases


def _count_encoder(config: EncoderConfig) -> ParameterCount:
    width, inner = config.d_model, config.d_ff
    dense = width * width + width
    pair = dense + 2 * width + 2 if config.pair_head else 0
    return ParameterCount(
        input_embedding=0,
        position_embedding=(config.max_seq_len + config.n_types) * width,
        attention=config.n_layers * 4 * dense,
        feed_forward=config.n_layers * (2 * width * inner + inner + width),
        norm=2 * width * (2 * config.n_layers + 2),
        output=config.vocab_size * (width + 1) + dense + pair,
    )


def _count_encoder_decoder(config: EncoderDecoderConfig) -> ParameterCount:
    heads, width = config.n_heads * config.head_dim, config.d_model
    attentions = config.n_layers + 2 * config.n_decoder_layers
    parts = config.n_layers + config.n_decoder_layers
    matrix = config.vocab_size * width
    return ParameterCount(
        input_embedding=0 if config.tie_embeddings else matrix,
        position_embedding=0,
        attention=attentions * 4 * width * heads + 2 * config.n_buckets * config.n_heads,
        feed_forward=parts * _feed_forward(config),
        norm=(attentions + parts + 2) * width,
        output=matrix,
    )


# --- FLOPs ---------------------------------------------------------------------------------


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


def flops_per_token(config: DecoderConfig | EncoderConfig, seq_len: int) -> FlopCount:
    """Count FLOPs per token at sequences of `seq_len` tokens, each one document.

    An encoder's output layer is counted at every position; where it is computed for the masked
    ones alone, take their share of it.
    """
    if isinstance(config, EncoderConfig):
        width = config.d_model
        return FlopCount(
            attention_projections=config.n_layers * 2 * 4 * width * width,
            attention_scores=config.n_layers * 4 * seq_len * width,
            feed_forward=config.n_layers * 2 * 2 * width * config.d_ff,
            output=2 * width * (config.vocab_size + width),
        )
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    matrices = 3 if config.activation in GATED else 2
    feed_forward = matrices * config.d_model * config.d_ff
    if config.experts is not None:
        experts = config.experts
        at_work = 3 * experts.d_expert * (experts.top_k + experts.n_shared)
        feed_forward = config.d_model * (at_work + experts.n_experts)
    projections = 2 * config.d_model * (query + key)
    # 2 products × 2 FLOPs × seq_len / 2 earlier positions on average.
    scores = 2 * seq_len * query
    if config.window is not None and config.window < seq_len:
        # window − window² / 2 seq_len positions on average.
        scores = 2 * config.window * (2 * seq_len - config.window) * query // seq_len
    if config.positions == "relative":  # a third product with projected distances
        scores += scores // 2
        projections += config.d_model * query
    return FlopCount(
        attention_projections=config.n_layers * 2 * projections,
        attention_scores=config.n_layers * scores,
        feed_forward=config.n_layers * 2 * feed_forward,
        output=2 * config.d_model * config.vocab_size,
    )


def flops_per_pair(
    config: EncoderDecoderConfig, source_tokens: int, target_tokens: int
) -> FlopCount:
    """Count FLOPs of one pair of source and target (not per token) in an encoder–decoder."""
    heads, source, target = config.n_heads * config.head_dim, source_tokens, target_tokens
    projection = 2 * config.d_model * heads
    encoder, decoder = config.n_layers, config.n_decoder_layers
    # Each layer: 4 projections of its own sequence; cross-attention 2 of either.
    projections = encoder * 4 * source + decoder * (4 * target + 2 * target + 2 * source)
    squares = encoder * source * source + decoder * (target * target // 2 + source * target)
    feed_forward = 2 * _feed_forward(config)
    return FlopCount(
        attention_projections=projection * projections,
        attention_scores=4 * heads * squares,
        feed_forward=feed_forward * (encoder * source + decoder * target),
        output=2 * config.d_model * config.vocab_size * target,
    )


def flops_6n(config: AnyConfig) -> int:
    """Training FLOPs per token by the rule C = 6ND (Kaplan et al. 2020), N the active `params`."""
    return 6 * count_parameters(config).active


def kv_bytes_per_token(config: AnyConfig, bytes_per_value: int = FLOAT32_BYTES) -> int:
    """Bytes of keys and values that generation keeps for each token it has seen.

    In an encoder–decoder this is so for each target token and for each source token as well; an
    encoder keeps none.
    """
    if isinstance(config, EncoderConfig):
        return 0
    if isinstance(config, EncoderDecoderConfig):
        heads, depth = config.n_heads, config.n_decoder_layers
    else:
        heads, depth = config.n_kv_heads, config.n_layers
    return 2 * depth * heads * config.head_dim * bytes_per_value
