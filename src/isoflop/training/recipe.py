"""What a pre-training run is: the recipe as frozen dataclasses, checked as a whole; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.models.config import DECODER_FORMS
from isoflop.models.recipe import ModelConfig
from isoflop.training.schedules import Schedule


@dataclass(frozen=True)
class DataConfig:
    """Where the tokens come from."""

    shards: Path
    """A directory made by `isoflop tokenize`."""


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
    found += model.problems()
    if model.resolved_architecture not in DECODER_FORMS:
        found.append(
            f"model.architecture = {model.resolved_architecture} is no decoder, and next tokens "
            "are predicted by decoders"
        )
    return found
