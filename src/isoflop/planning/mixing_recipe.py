"""What a search of the best mixture is: sources, small runs, the run to mix for; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.models.recipe import ModelConfig
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, MixtureSource, TrainConfig, TrainRecipe

SEED_STEP = 1000
"""Between the seeds of two runs: each has its own luck, so that the law's scatter holds it."""


@dataclass(frozen=True)
class SourceOption:
    """One source that may be mixed (a `[[sources]]` table)."""

    name: str
    """Its name in tables, laws and the mixture."""
    shards: Path
    """A directory made by `isoflop tokenize`, with the same tokenizer as the others."""
    target: float = 1.0
    """How much the loss of its held-out text counts; 0 for not at all."""
    train: bool = True
    """Train on it. Without, it is judged on alone: the kind of text the model is for."""
    most: float = 1.0
    """Its largest share, where it should not have what its tokens would allow."""
    synthetic: bool = False
    """Made by a model or a program: its share is reported, and limited by synthetic_most."""


@dataclass(frozen=True)
class MixtureRecipe:
    """Tiny models over sampled mixtures, a law through their losses, and its best mixture."""

    sources: tuple[SourceOption, ...]
    """What may be mixed, and what the model is judged on."""
    target_tokens: int
    """Training tokens of the run that is to be mixed: they limit the share of a small source."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(d_model=64, n_layers=2))
    """The one small model that all runs share."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of all runs."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            tokens=500_000, evaluations=1, tensorboard=False, checkpoint_every=200
        )
    )
    """Length, batches and seed of every run."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Bad batches and bad steps, in every run."""
    proxies: int = 16
    """Runs for the law, the repeated ones included."""
    repeats: int = 3
    """Runs with the natural proportions among them: they show the noise from run to run."""
    checks: int = 2
    """Runs with the best mixture, made after its losses are promised."""
    natural_checks: int = 1
    """Further runs with the natural proportions, made together with the checks."""
    objective: Literal["mean", "worst"] = "mean"
    """mean: the weighted mean of the losses; worst: the largest excess over the loss with the
    natural proportions, as DoReMi (Xie et al. 2023) minimises it."""
    least: float = 0.05
    """Smallest share that is tried of a source (a source whose natural share is smaller: that).
    What happens below is not known, so the best mixture does not go there either."""
    synthetic_most: float = 1.0
    """Largest share of all synthetic sources together."""
    repetition: float = 15.4
    """R_D*, the repetitions after which another one is worth 1/e of fresh data; that of
    Muennighoff et al. 2023. A source may be gone through 1 + R_D* times."""
    data_law: Path | None = None
    """A law.json of the form data-constrained, whose R_D* is taken instead."""
    level: float = 0.9
    """Probability that the intervals promise."""
    processes: int | None = None
    """Runs side by side, each with its share of the cores; one per core (at most 8) if omitted."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems = list(_problems(self))
        if problems:
            raise RecipeError("; ".join(problems), where="mixture recipe")
        self.run_recipe(dict.fromkeys(self.training, 1.0 / len(self.training)), 0)

    @property
    def training(self) -> tuple[str, ...]:
        """Names of the sources that are mixed."""
        return tuple(source.name for source in self.sources if source.train)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the sources whose held-out loss is measured: all of them."""
        return tuple(source.name for source in self.sources)

    @property
    def target(self) -> dict[str, float]:
        """What each domain's loss counts, of those that count; adds up to 1."""
        total = sum(source.target for source in self.sources)
        return {s.name: s.target / total for s in self.sources if s.target > 0.0}

    @property
    def synthetic(self) -> tuple[str, ...]:
        """Names of the synthetic sources that are mixed."""
        return tuple(source.name for source in self.sources if source.train and source.synthetic)

    @property
    def data(self) -> DataConfig:
        """The sources as a mixture without weights."""
        return DataConfig(mixture=tuple(MixtureSource(s.name, s.shards) for s in self.sources))

    def run_recipe(self, weights: Mapping[str, float], number: int) -> TrainRecipe:
        """The full recipe of the run of that number, with these weights.

        A source without weight is judged on and not trained on: its curriculum is 0 throughout.
        """
        mixture = tuple(
            MixtureSource(s.name, s.shards, curriculum=((0.0, float(weights.get(s.name, 0.0))),))
            for s in self.sources
        )
        return TrainRecipe(
            data=DataConfig(mixture=mixture),
            model=self.model,
            optimizer=self.optimizer,
            train=replace(self.train, seed=self.train.seed + SEED_STEP * number),
            guard=self.guard,
        )


def _problems(recipe: MixtureRecipe) -> Iterator[str]:
    count = len(recipe.training)
    if count < 2:
        yield f"{count} of the sources are trained on: give at least two [[sources]] tables"
    names = recipe.domains
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two sources are named {name}"
    for source in recipe.sources:
        if not source.target >= 0.0:
            yield f"source {source.name}: target = {source.target} must not be negative"
        if not 0.0 < source.most <= 1.0:
            yield f"source {source.name}: most = {source.most} is outside (0, 1]"
    if not any(source.target > 0.0 for source in recipe.sources):
        yield "no source has a positive target: nothing is to be lowered"
    if recipe.target_tokens < 1:
        yield f"target_tokens = {recipe.target_tokens} must be positive"
    if recipe.repeats < 2:
        yield f"repeats = {recipe.repeats}: two equal runs at least show the noise"
    if recipe.checks < 1 or recipe.natural_checks < 1:
        yield "checks and natural_checks must be at least 1: a promise is to be scored"
    needed = count + 2 + recipe.repeats - 1
    if recipe.proxies < needed:
        yield (
            f"proxies = {recipe.proxies}: a law of {count} sources takes {count + 2} mixtures or "
            f"more, so with {recipe.repeats} runs of one of them {needed} proxies"
        )
    if not 0.0 <= recipe.least * count < 1.0:
        yield f"least = {recipe.least} of each of {count} sources leaves nothing to mix"
    if not 0.0 < recipe.synthetic_most <= 1.0:
        yield f"synthetic_most = {recipe.synthetic_most} is outside (0, 1]"
    if not recipe.repetition > 0.0:
        yield f"repetition = {recipe.repetition} must be positive"
    if not 0.0 < recipe.level < 1.0:
        yield f"level = {recipe.level} is outside (0, 1)"
