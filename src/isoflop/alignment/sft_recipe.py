"""What a supervised fine-tuning is: the recipe as frozen dataclasses, checked as a whole; no torch.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.training.guard_recipe import GuardConfig, guard_problems
from isoflop.training.optimizer_recipe import OptimizerConfig, optimizer_problems
from isoflop.training.parallel.recipe import ParallelConfig, sharded_problems


@dataclass(frozen=True)
class StartConfig:
    """What is trained further."""

    path: Path
    """A model directory: `model/` of a run, or one made by `isoflop import`."""
    chat_template: str | None = None
    """chatml, inst, alpaca, or a Jinja file; the model's own when not given, else chatml."""


@dataclass(frozen=True)
class LoraConfig:
    """Train small matrices beside the frozen ones (`[lora]`)."""

    rank: int | None = None
    """Rank of the change of every matrix (Hu et al. 2022); all weights are trained when not
    given."""
    alpha: float = 16.0
    """The change is scaled by alpha / rank."""
    dora: bool = False
    """Also train the length of every row (DoRA, Liu et al. 2024)."""


@dataclass(frozen=True)
class InstructData:
    """What is learnt."""

    set: Path
    """A directory made by `isoflop data instruct`."""
    too_long: Literal["cut", "skip", "stop"] = "cut"
    """Conversations longer than train.seq_len: cut within a text or between turns, leave out and
    count, or stop."""
    unusable: Literal["skip", "stop"] = "stop"
    """Conversations with nothing to learn, or that the template refuses: leave out and count, or
    stop and name them."""
    replay: Path | None = None
    """Shards of text the model was trained on (`isoflop tokenize`), mixed in so that it is not
    forgotten; none when not given."""
    replay_share: float = 0.25
    """Share of the windows of each step that are such text."""


@dataclass(frozen=True)
class SftTrainConfig:
    """How long, on which batches, and what is written down."""

    epochs: float = 2.0
    """Times the set is gone through."""
    seq_len: int | None = None
    """Tokens of a packed window; the model's context when not given."""
    global_batch_tokens: int = 8192
    """Positions per optimizer step, over all devices."""
    micro_batch_tokens: int = 4096
    """Positions per forward and backward pass; changes speed and memory only."""
    neftune_alpha: float | None = None
    """Noise on the embeddings while training (Jain et al. 2024); off when not given."""
    extra_layers: int = 0
    """Blocks added on top of the model, which begin as the identity and learn with the rest (Wu et
    al. 2024): one block alone can hardly copy what it was asked into its answer."""
    seed: int = 0
    """Fixes packing, order and noise."""
    threads: int | None = None
    """CPU threads; all cores when not given."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluations: int = 2
    """Held-out evaluations during the run, evenly spaced, the last at the end."""
    eval_rows: int = 500
    """Most held-out conversations whose loss is measured."""
    eval_answers: int = 100
    """Most held-out questions that are answered and checked at each evaluation."""
    max_new_tokens: int = 64
    """Longest answer of an evaluation."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""


@dataclass(frozen=True)
class SftRecipe:
    """One supervised fine-tuning."""

    model: StartConfig
    """The model it starts from."""
    data: InstructData
    """The instruction set."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    train: SftTrainConfig = field(default_factory=SftTrainConfig)
    """Length, batches, logging."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adapters in place of all weights."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Bad batches and bad steps."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How it is laid out over processes."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems = [*_problems(self)]
        if problems:
            raise RecipeError("; ".join(problems), where="sft recipe")


def _problems(recipe: SftRecipe) -> Iterator[str]:
    train, lora = recipe.train, recipe.lora
    for name in (
        "global_batch_tokens", "micro_batch_tokens", "log_every", "evaluations", "eval_rows",
        "max_new_tokens", "checkpoint_every",
    ):  # fmt: skip
        if getattr(train, name) < 1:
            yield f"train.{name} = {getattr(train, name)} must be at least 1"
    for name in ("eval_answers", "extra_layers"):
        if getattr(train, name) < 0:
            yield f"train.{name} = {getattr(train, name)} must not be negative"
    if not train.epochs > 0:
        yield f"train.epochs = {train.epochs} must be positive"
    for name in ("seq_len", "threads"):
        if getattr(train, name) is not None and getattr(train, name) < 1:
            yield f"train.{name} = {getattr(train, name)} must be at least 1"
    if train.neftune_alpha is not None and not train.neftune_alpha > 0:
        yield f"train.neftune_alpha = {train.neftune_alpha} must be positive"
    if not 0 < recipe.data.replay_share < 1:
        yield f"data.replay_share = {recipe.data.replay_share} is outside (0, 1)"
    if lora.rank is not None and lora.rank < 1:
        yield f"lora.rank = {lora.rank} must be at least 1"
    if train.extra_layers and lora.rank is not None:
        yield "train.extra_layers needs all weights trained: leave lora.rank out"
    if lora.dora and lora.rank is None:
        yield "lora.dora needs lora.rank"
    if not lora.alpha > 0:
        yield f"lora.alpha = {lora.alpha} must be positive"
    if recipe.optimizer.base_width is not None or recipe.optimizer.base_depth is not None:
        yield "optimizer.base_width and base_depth are for training from scratch"
    yield from optimizer_problems(recipe.optimizer)
    yield from guard_problems(recipe.guard)
    yield from sharded_problems(recipe.parallel, recipe.optimizer)
    if recipe.parallel.devices > 1 and lora.rank is not None:
        yield "lora.rank is for one process"
