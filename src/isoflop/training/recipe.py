"""What a pre-training run is: the recipe as frozen dataclasses, checked as a whole; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.models.config import DecoderConfig
from isoflop.training.schedules import Schedule


@dataclass(frozen=True)
class MixtureSource:
    """One source of a mixture (a `[[data.mixture]]` table)."""

    name: str
    """Its name in the logs."""
    shards: Path
    """A directory made by `isoflop tokenize`, with the same tokenizer as the others."""
    weight: float | None = None
    """Its share of the training tokens, relative to the others'; its own tokens when no source
    gives one."""
    curriculum: tuple[tuple[float, float], ...] = ()
    """Points [progress, weight] instead of one weight: linear between them, progress from 0 to 1
    over the training."""


@dataclass(frozen=True)
class DataConfig:
    """Where the tokens come from."""

    shards: Path | None = None
    """A directory made by `isoflop tokenize`, where there is no mixture."""
    mixture: tuple[MixtureSource, ...] = ()
    """Several of them, mixed on the fly."""
    temperature: float = 1.0
    """Weights are raised to 1/temperature: above 1, small sources of a mixture get more."""
    packing: Literal["stream", "best-fit"] = "stream"
    """stream: documents one after the other, cut where a sequence ends; best-fit: whole
    documents packed into sequences, with a little padding."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems = []
        if (self.shards is None) == (not self.mixture):
            problems.append("give either data.shards or [[data.mixture]] tables")
        if not self.temperature > 0:
            problems.append(f"data.temperature = {self.temperature} must be positive")
        if self.temperature != 1 and not self.mixture:
            problems.append("data.temperature is for a mixture")
        names = [source.name for source in self.mixture]
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"two sources of data.mixture are named {name}")
        for source in self.mixture:
            if source.curriculum and source.weight is not None:
                problems.append(f"source {source.name}: give weight or curriculum, not both")
            if source.weight is not None and not source.weight > 0:
                problems.append(f"source {source.name}: weight {source.weight} must be positive")
        given = [s.weight is not None or bool(s.curriculum) for s in self.mixture]
        if any(given) and not all(given):
            problems.append("give weights to all sources of data.mixture or to none")
        if self.temperature != 1 and any(source.curriculum for source in self.mixture):
            problems.append("data.temperature and a curriculum do not go together")
        if problems:
            raise RecipeError("; ".join(problems), where="train recipe")

    @property
    def directories(self) -> tuple[Path, ...]:
        """All shard directories."""
        if self.shards is not None:
            return (self.shards,)
        return tuple(source.shards for source in self.mixture)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model; what is left out follows from `d_model`."""

    d_model: int = 128
    """Width of the residual stream; a multiple of 32."""
    n_layers: int = 4
    """Number of blocks."""
    head_dim: int = 32
    """Width of one attention head."""
    n_heads: int | None = None
    """Query heads; d_model / head_dim when not given."""
    n_kv_heads: int | None = None
    """Key–value heads; as many as query heads when not given."""
    d_ff: int | None = None
    """Feed-forward width; 8/3 d_model rounded up to a multiple of 32 when not given."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    tie_embeddings: bool = True
    """Use the embedding matrix as output layer."""

    def decoder_config(self, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The full shape of the decoder, with what was left out filled in."""
        n_heads = self.n_heads or self.d_model // self.head_dim
        return DecoderConfig(
            vocab_size=vocab_size,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=n_heads,
            n_kv_heads=self.n_kv_heads or n_heads,
            head_dim=self.head_dim,
            d_ff=self.d_ff or math.ceil(8 * self.d_model / 3 / 32) * 32,
            max_seq_len=max_seq_len,
            rope_theta=self.rope_theta,
            tie_embeddings=self.tie_embeddings,
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) and its learning rate."""

    learning_rate: float = 4e-3
    """Peak learning rate."""
    schedule: Schedule = "wsd"
    """Shape of the learning rate over the run."""
    warmup_tokens: int = 200_000
    """Tokens over which the learning rate rises from 0."""
    decay_fraction: float = 0.2
    """Last share of the run over which `wsd` decays."""
    final_fraction: float = 0.0
    """Learning rate at the end, as a share of the peak."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices; norms and embeddings have none."""
    beta1: float = 0.9
    """Decay rate of the first moment."""
    beta2: float = 0.95
    """Decay rate of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    clip_norm: float = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, on which batches, and what is written down."""

    tokens: int = 5_000_000
    """Training tokens; rounded down to whole global batches."""
    seq_len: int = 256
    """Tokens per sequence."""
    global_batch_tokens: int = 8192
    """Tokens per optimizer step, over all devices."""
    micro_batch_tokens: int = 4096
    """Tokens per forward and backward pass on one device; changes speed and memory only."""
    seed: int = 0
    """Fixes initial weights and data order."""
    dtype: Literal["float32"] = "float32"
    """Number format of the computation."""
    threads: int | None = None
    """CPU threads; all cores when not given."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl; each line averages the steps since the last."""
    evaluations: int = 4
    """Held-out evaluations during the run, evenly spaced, the last at the end."""
    eval_tokens: int = 200_000
    """Held-out tokens of each evaluation."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_checkpoints_at: tuple[int, ...] = ()
    """Token counts at which a checkpoint is written and kept, for other runs to branch from."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts continued greedily at each evaluation and written to samples.jsonl."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""


@dataclass(frozen=True)
class TrainRecipe:
    """One pre-training run."""

    data: DataConfig
    """Token shards."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Architecture."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, batches, logging."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise RecipeError("; ".join(problems), where="train recipe")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.train.tokens // self.train.global_batch_tokens


def _problems(recipe: TrainRecipe) -> list[str]:
    train, optimizer, model = recipe.train, recipe.optimizer, recipe.model
    found = []
    for name in (
        "seq_len",
        "global_batch_tokens",
        "micro_batch_tokens",
        "log_every",
        "evaluations",
        "eval_tokens",
        "checkpoint_every",
    ):
        if getattr(train, name) < 1:
            found.append(f"train.{name} = {getattr(train, name)} must be at least 1")
    if found:
        return found
    if train.micro_batch_tokens % train.seq_len:
        found.append(
            f"train.micro_batch_tokens = {train.micro_batch_tokens} is not a multiple "
            f"of train.seq_len = {train.seq_len}"
        )
    if train.global_batch_tokens % train.micro_batch_tokens:
        found.append(
            f"train.global_batch_tokens = {train.global_batch_tokens} is not a multiple "
            f"of train.micro_batch_tokens = {train.micro_batch_tokens}"
        )
    if train.tokens < train.global_batch_tokens:
        found.append(
            f"train.tokens = {train.tokens} is less than one global batch of "
            f"{train.global_batch_tokens} tokens"
        )
    if any(at % train.global_batch_tokens for at in train.keep_checkpoints_at):
        found.append("train.keep_checkpoints_at must hold multiples of train.global_batch_tokens")
    if train.threads is not None and train.threads < 1:
        found.append(f"train.threads = {train.threads} must be at least 1")
    for name in ("learning_rate", "clip_norm"):
        if not getattr(optimizer, name) > 0:
            found.append(f"optimizer.{name} = {getattr(optimizer, name)} must be positive")
    for name in ("warmup_tokens", "weight_decay", "eps"):
        if not getattr(optimizer, name) >= 0:
            found.append(f"optimizer.{name} = {getattr(optimizer, name)} must not be negative")
    for name in ("decay_fraction", "final_fraction"):
        if not 0 <= getattr(optimizer, name) <= 1:
            found.append(f"optimizer.{name} = {getattr(optimizer, name)} is outside [0, 1]")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(optimizer, name) < 1:
            found.append(f"optimizer.{name} = {getattr(optimizer, name)} is outside [0, 1)")
    if model.d_model < 1 or model.d_model % 32:
        found.append(f"model.d_model = {model.d_model} is not a multiple of 32")
    if model.head_dim < 1:
        found.append(f"model.head_dim = {model.head_dim} must be at least 1")
    elif model.n_heads is None and model.d_model % model.head_dim:
        found.append(
            f"model.d_model = {model.d_model} is not a multiple of model.head_dim = "
            f"{model.head_dim}; give model.n_heads"
        )
    return found
