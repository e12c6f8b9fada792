"""The shapes of models, checked; no torch here, so that plans and laws can count without it.

Not for the modules (`decoder.py`, `encoder.py`, `encoder_decoder.py`), for named models
(`presets.py`) nor for recipes, which leave parts of the shape out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from isoflop.core.errors import RecipeError

FEWEST_FUSED = 8
"""Shortest window for the fast CPU forms: shorter ones are generation's, a token at a time."""
LONGEST_FUSED = 512
"""Longest window whose attention a CPU computes block by block and keeps (`fused.py`)."""
BLOCK_QUERIES = 64
"""Queries of one such block: keys after the last of them are skipped, not masked."""

Norm: TypeAlias = Literal["rms", "layer"]
"""RMSNorm (Zhang & Sennrich 2019) or LayerNorm with a bias (Ba et al. 2016)."""
Positions: TypeAlias = Literal["rotary", "learned", "sinusoidal", "alibi", "relative"]
"""How a decoder knows order: rotary (Su et al. 2021), a learned row per position (GPT), added
sinusoids (Vaswani et al. 2017), a slope per head on the distance (ALiBi, Press et al. 2022), or
Transformer-XL's projected sinusoids of the distance (Dai et al. 2019; Gopher, Chinchilla)."""
Recompute: TypeAlias = Literal["none", "attention", "block"]
"""What one layer computes again in its backward pass: nothing, its attention half, or all of it but
its input."""
Activation: TypeAlias = Literal["swiglu", "geglu", "gelu", "relu"]
"""The inside of a feed-forward part; the gated two (Shazeer 2020) have three matrices."""

GATED = ("swiglu", "geglu")


@dataclass(frozen=True)
class RopeScaling:
    """Rotary frequencies stretched for longer contexts, as Llama 3.1 does (its `rope_type` is
    `llama3`): slow ones are divided by `factor`, fast ones kept, those between mixed."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_seq_len: int


@dataclass(frozen=True)
class ExpertsConfig:
    """The feed-forward parts of a mixture of experts (Shazeer et al. 2017)."""

    n_experts: int
    """Routed experts in every layer."""
    top_k: int
    """Experts that each token goes to."""
    d_expert: int
    """Inner width of one expert."""
    n_shared: int = 0
    """Experts that every token goes to besides (DeepSeekMoE, Dai et al. 2024)."""
    normalise: bool = True
    """Scale the shares of a token's experts to sum to one."""
    balance_coefficient: float = 1e-3
    """Weight of the load-balance loss (Fedus et al. 2022, eq. 4)."""
    z_coefficient: float = 1e-3
    """Weight of the z-loss on router logits (Zoph et al. 2022, eq. 5)."""

    def problems(self) -> Iterator[str]:
        """What does not fit."""
        yield from _below_one(self, ("n_experts", "top_k", "d_expert"))
        if self.top_k > self.n_experts:
            yield f"top_k = {self.top_k} is more than n_experts = {self.n_experts}"
        for name in ("n_shared", "balance_coefficient", "z_coefficient"):
            if not getattr(self, name) >= 0:
                yield f"{name} = {getattr(self, name)} must not be negative"


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder; what is left at its default is Qwen3's.

    Raises:
        RecipeError: A size is below 1, or parts do not fit each other; all problems at once.
    """

    vocab_size: int
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    n_heads: int
    """Query heads."""
    n_kv_heads: int
    """Key–value heads; a divisor of `n_heads`."""
    head_dim: int
    d_ff: int
    """Inner width of the feed-forward part (of dense layers; experts have their own)."""
    max_seq_len: int = 256
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-6
    """Added to the mean square (or variance) in every norm."""
    tie_embeddings: bool = True
    """Use the embedding matrix as output layer."""
    norm: Norm = "rms"
    positions: Positions = "rotary"
    activation: Activation = "swiglu"
    """GELU here is its tanh form, as in GPT-2."""
    qk_norm: bool = True
    """RMS-normalise queries and keys per head."""
    bias: bool = False
    """Add biases in all projections but the output layer."""
    qkv_bias: bool = False
    """Add biases to queries, keys and values only (Qwen2)."""
    post_norm: bool = False
    """Normalise after each residual sum and not at the end (Vaswani et al. 2017; GPT-1)."""
    window: int | None = None
    """A token sees itself and window − 1 tokens before it; all when None."""
    rope_scaling: RopeScaling | None = None
    experts: ExpertsConfig | None = None
    """Experts in place of every dense feed-forward part."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
        problems = [
            *_below_one(self, (*sizes, "max_seq_len")),
            *_not_positive(self, ("rope_theta", "norm_eps")),
        ]
        if self.n_kv_heads > 0 and self.n_heads % self.n_kv_heads:
            problems.append(
                f"n_heads = {self.n_heads} is not a multiple of n_kv_heads = {self.n_kv_heads}"
            )
        if self.head_dim % 2 and self.positions == "rotary":
            problems.append(f"head_dim = {self.head_dim} must be even for rotary positions")
        if self.d_model % 2 and self.positions in ("sinusoidal", "relative"):
            problems.append(f"d_model = {self.d_model} must be even for sinusoids")
        if self.window is not None and self.window < 1:
            problems.append(f"window = {self.window} must be at least 1")
        if self.rope_scaling is not None and self.positions != "rotary":
            problems.append(f"rope_scaling does not go with positions = {self.positions}")
        if self.experts is not None:
            problems += self.experts.problems()
        _refuse(problems)

    @property
    def is_fused(self) -> bool:
        """Whether attention has the form that `fused_attention.py` computes."""
        return (
            self.norm == "rms"
            and self.positions == "rotary"
            and self.qk_norm
            and not (self.bias or self.qkv_bias or self.post_norm)
        )


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder of the BERT form (Devlin et al. 2019): post-norm LayerNorm, learned
    positions, token types, exact GELU, biases; heads for masked tokens and for sentence pairs.

    Raises:
        RecipeError: A size is below 1, or sizes do not fit each other; all problems at once.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    max_seq_len: int = 512
    n_types: int = 2
    """Token types: sentence A and sentence B."""
    pair_head: bool = True
    """Have the pooler and the head that tells whether one sentence follows the other."""
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_seq_len", "n_types")
        problems = [*_below_one(self, sizes), *_not_positive(self, ("norm_eps",))]
        if self.n_heads > 0 and self.d_model % self.n_heads:
            problems.append(
                f"d_model = {self.d_model} is not a multiple of n_heads = {self.n_heads}"
            )
        _refuse(problems)

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """The shape of an encoder–decoder of the T5 form (Raffel et al. 2020): pre-norm RMSNorm, one
    learned bias per bucket of distances, unscaled attention, no biases.

    Raises:
        RecipeError: A size is below 1, or sizes do not fit each other; all problems at once.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    """Blocks of the encoder."""
    n_decoder_layers: int
    n_heads: int
    head_dim: int
    """Width of one head; heads side by side need not make up the stream's width."""
    d_ff: int
    max_seq_len: int = 512
    """Longest sequence on either side; the model itself has no limit."""
    activation: Activation = "relu"
    """`relu` in T5 1.0, `geglu` (with tanh GELU) in T5 1.1."""
    tie_embeddings: bool = True
    """Use the embedding matrix as output layer, its input scaled by d_model^(−1/2) (T5 1.0)."""
    n_buckets: int = 32
    """Buckets of relative distances."""
    max_distance: int = 128
    """Distance from which on all share the last bucket."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size", "d_model", "n_layers", "n_decoder_layers", "n_heads", "head_dim",
            "d_ff", "max_seq_len",
        )  # fmt: skip
        problems = [*_below_one(self, sizes), *_not_positive(self, ("norm_eps",))]
        if self.n_buckets < 4 or self.n_buckets % 4:
            problems.append(f"n_buckets = {self.n_buckets} must be a multiple of 4")
        elif self.max_distance <= self.n_buckets // 2:
            problems.append(
                f"max_distance = {self.max_distance} must exceed n_buckets / 2 = "
                f"{self.n_buckets // 2}"
            )
        _refuse(problems)


AnyConfig: TypeAlias = DecoderConfig | EncoderConfig | EncoderDecoderConfig

Architecture: TypeAlias = Literal["qwen3", "llama", "gpt2", "qwen3-moe", "bert", "t5"]
"""What a recipe calls the forms."""

DECODER_FORMS: Mapping[str, Mapping[str, Any]] = {
    "qwen3": {},
    "qwen3-moe": {},
    "llama": {"qk_norm": False, "norm_eps": 1e-5},
    "gpt2": {
        "norm": "layer", "positions": "learned", "activation": "gelu", "qk_norm": False,
        "bias": True, "norm_eps": 1e-5,
    },
}  # fmt: skip
"""Architecture → the parts of `DecoderConfig` in which it differs from the defaults."""


def _below_one(config: object, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if getattr(config, name) < 1:
            yield f"{name} = {getattr(config, name)} must be at least 1"


def _not_positive(config: object, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if not getattr(config, name) > 0:
            yield f"{name} = {getattr(config, name)} must be positive"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise RecipeError("; ".join(problems), where="model")
