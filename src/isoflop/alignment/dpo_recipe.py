"""What DPO and the reward model are told: recipes as frozen dataclasses, checked; no torch.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.alignment.sft_recipe import StartConfig
from isoflop.core.errors import RecipeError
from isoflop.training.guard_recipe import GuardConfig, guard_problems
from isoflop.training.optimizer_recipe import OptimizerConfig, optimizer_problems
from isoflop.training.parallel.recipe import ParallelConfig, sharded_problems


@dataclass(frozen=True)
class PreferenceData:
    """What is learnt."""

    set: Path
    """A directory made by `isoflop data instruct`, with preference rows."""
    text: Path | None = None
    """Shards of text the model was trained on (`isoflop tokenize`), whose bits per byte are told
    before and after: what the run cost; not told when not given."""


@dataclass(frozen=True)
class DpoConfig:
    """The loss (`[dpo]`)."""

    loss: Literal["sigmoid", "ipo", "hinge", "simpo", "kto"] = "sigmoid"
    """sigmoid: DPO (Rafailov et al. 2023); ipo (Azar et al. 2024), whose τ is beta; hinge (Zhao et
    al. 2023); simpo, without a reference (Meng et al. 2024); kto, on single answers (Ethayarajh et
    al. 2024)."""
    reference: Path | None = None
    """The model directory of the reference; the model it starts from when not given."""
    beta: float = 0.1
    """Size of the implicit reward per nat of log(π/π_ref)."""
    label_smoothing: float = 0.0
    """Share of the labels taken to be wrong (sigmoid; "conservative" DPO, Mitchell 2023)."""
    length_normalised: bool = False
    """Compare means over tokens instead of sums (sigmoid, ipo, hinge); simpo always does."""
    gamma: float = 0.5
    """Margin that is asked for (simpo)."""
    desirable_weight: float = 1.0
    """Weight of good answers (kto)."""
    undesirable_weight: float = 1.0
    """Weight of bad answers (kto)."""


@dataclass(frozen=True)
class PairTrain:
    """How long, on which batches, and what is written down (`[train]`)."""

    epochs: float = 1.0
    """Times the pairs are gone through."""
    batch_pairs: int = 32
    """Pairs (kto: answers) of an optimizer step."""
    micro_batch_pairs: int = 32
    """Pairs per forward and backward pass; changes speed and memory only."""
    max_tokens: int | None = None
    """Longer prompts with answers are left out and counted; the model's context when not given."""
    seed: int = 0
    """Fixes the order."""
    threads: int | None = None
    """CPU threads; all cores when not given."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    evaluations: int = 2
    """Held-out evaluations during the run, evenly spaced, the last at the end."""
    eval_pairs: int = 500
    """Most held-out pairs that are judged."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""


@dataclass(frozen=True)
class PairRecipe:
    """What learning from preferences has in common."""

    model: StartConfig
    """The model it starts from."""
    data: PreferenceData
    """The preferences."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule; tokens of warm-up are counted as pairs of the longest answers."""
    train: PairTrain = field(default_factory=PairTrain)
    """Length, batches, logging."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Bad batches and bad steps."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        if problems := [*_problems(self), *self.own_problems()]:
            raise RecipeError("; ".join(problems), where="recipe")

    def own_problems(self) -> Iterator[str]:
        """What is impossible in the method's own table."""
        yield from ()


@dataclass(frozen=True)
class DpoRecipe(PairRecipe):
    """One run of direct preference optimisation; the model it starts from is the reference."""

    dpo: DpoConfig = field(default_factory=DpoConfig)
    """The loss."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How it is laid out over processes."""

    def own_problems(self) -> Iterator[str]:
        """What is impossible in `[dpo]`."""
        dpo = self.dpo
        yield from sharded_problems(self.parallel, self.optimizer)
        if not dpo.beta > 0:
            yield f"dpo.beta = {dpo.beta} must be positive"
        if not 0 <= dpo.label_smoothing < 0.5:
            yield f"dpo.label_smoothing = {dpo.label_smoothing} is outside [0, 0.5)"
        if dpo.label_smoothing and dpo.loss != "sigmoid":
            yield f"dpo.label_smoothing does not go with the loss {dpo.loss}"
        if dpo.length_normalised and dpo.loss in ("simpo", "kto"):
            yield f"dpo.length_normalised does not go with the loss {dpo.loss}"
        for name in ("gamma", "desirable_weight", "undesirable_weight"):
            if getattr(dpo, name) < 0:
                yield f"dpo.{name} = {getattr(dpo, name)} must not be negative"
        if dpo.loss == "kto" and self.train.micro_batch_pairs < self.train.batch_pairs:
            yield "train.micro_batch_pairs must be train.batch_pairs for kto, which compares the "
            "answers of a batch with its mean divergence"


@dataclass(frozen=True)
class RewardConfig:
    """The loss (`[reward]`)."""

    centring: float = 0.01
    """Pull of each pair's scores towards a mean of 0 (Eisenstein et al. 2023)."""
    use_margins: bool = True
    """Ask for as much difference as a row's `margin` says (Touvron et al. 2023)."""
    label_noise: float = 0.0
    """Share of the labels known to be wrong: one less it is the most that a reward model can be
    right about, and what is promised after a third of the run ends there."""


@dataclass(frozen=True)
class RewardRecipe(PairRecipe):
    """One training of a reward model; rows may name the head they train by `head`."""

    reward: RewardConfig = field(default_factory=RewardConfig)
    """The loss."""

    def own_problems(self) -> Iterator[str]:
        """What is impossible in `[reward]`."""
        if self.reward.centring < 0:
            yield f"reward.centring = {self.reward.centring} must not be negative"
        if not 0 <= self.reward.label_noise < 0.5:
            yield f"reward.label_noise = {self.reward.label_noise} is outside [0, 0.5)"


def _problems(recipe: PairRecipe) -> Iterator[str]:
    train = recipe.train
    for name in (
        "batch_pairs", "micro_batch_pairs", "log_every", "evaluations", "eval_pairs",
        "checkpoint_every",
    ):  # fmt: skip
        if getattr(train, name) < 1:
            yield f"train.{name} = {getattr(train, name)} must be at least 1"
    if not train.epochs > 0:
        yield f"train.epochs = {train.epochs} must be positive"
    for name in ("max_tokens", "threads"):
        value = getattr(train, name)
        if value is not None and value < 1:
            yield f"train.{name} = {value} must be at least 1"
    yield from optimizer_problems(recipe.optimizer)
    yield from guard_problems(recipe.guard)
