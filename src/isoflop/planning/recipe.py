"""What a ladder is: rungs over sizes and horizons, the rule for the learning rate; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from isoflop.core.errors import RecipeError
from isoflop.models.recipe import ModelConfig
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe

SEED_STEP = 1000
"""Between the seeds of two trunks of a size, so that neighbouring ladders share none."""


@dataclass(frozen=True)
class RungConfig:
    """All runs of one size: a trunk at a constant learning rate, cooled down at each horizon."""

    d_model: int
    """Width of this size."""
    n_layers: int
    """Depth of this size."""
    tokens: tuple[int, ...]
    """Horizons: training tokens of each run of this size; rounded down to global batches."""
    seeds: int = 1
    """Trunks, each with its own initial weights and data order. Runs of one trunk share its luck,
    which at small sizes is most of their noise: more trunks average it out."""


@dataclass(frozen=True)
class WidthRule:
    """How the learning rate follows the width."""

    base_width: int = 64
    """Width at which `optimizer.learning_rate` is meant."""
    exponent: float = 0.5
    """Learning rate ∝ (base_width / d_model)^exponent."""

    def learning_rate(self, base: float, d_model: int) -> float:
        """The peak learning rate of a model of this width."""
        return float(base * (self.base_width / d_model) ** self.exponent)


@dataclass(frozen=True)
class EvalConfig:
    """What the finished runs are asked."""

    tasks: tuple[str, ...] = ()
    """Tasks as `isoflop eval` takes them, NAME or NAME=PATH; none when not given."""
    limit: int | None = None
    """Most items of each group of a task; all when not given."""
    seed: int = 0
    """Draws the generated items."""


@dataclass(frozen=True)
class LadderRecipe:
    """Many small runs that differ in size and horizon and in nothing else."""

    data: DataConfig
    """Token shards, the same for all rungs."""
    rungs: tuple[RungConfig, ...]
    """Sizes and their horizons."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """What all sizes share; width and depth come from the rungs."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer; the schedule is `wsd`, so that one trunk serves all horizons of a size."""
    width_rule: WidthRule = field(default_factory=WidthRule)
    """Learning rate by width."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(evaluations=1, tensorboard=False, checkpoint_every=200)
    )
    """Batches, seed and logging of every run; `tokens` comes from the rungs."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Bad batches and bad steps, in every run."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """What the runs can do, asked when all are trained."""
    processes: int | None = None
    """Runs side by side, each with its share of the cores; one per core (at most 8) if omitted:
    at these sizes two runs on one core each finish sooner than one run on two."""

    def __post_init__(self) -> None:
        problems = []
        if self.optimizer.schedule != "wsd":
            problems.append(f"optimizer.schedule = {self.optimizer.schedule}: a ladder needs wsd")
        if not self.optimizer.decay_fraction > 0:
            problems.append("optimizer.decay_fraction = 0: losses of undecayed runs bias a law")
        if self.train.initial_batch_tokens is not None:
            problems.append("train.initial_batch_tokens: the runs of a ladder share one batch size")
        if any(source.curriculum for source in self.data.mixture):
            problems.append("data.mixture has a curriculum: runs of several horizons share a trunk")
        if not self.rungs:
            problems.append("rungs is empty")
        if self.eval.limit is not None and self.eval.limit < 1:
            problems.append(f"eval.limit = {self.eval.limit} must be at least 1")
        sizes = [(rung.d_model, rung.n_layers) for rung in self.rungs]
        for width, depth in sorted({size for size in sizes if sizes.count(size) > 1}):
            problems.append(f"two rungs are {width}x{depth}: give one of them all the horizons")
        for rung in self.rungs:
            short = [t for t in rung.tokens if t < 2 * self.train.global_batch_tokens]
            if rung.seeds < 1:
                problems.append(f"rung {rung.d_model}x{rung.n_layers}: seeds must be at least 1")
            if not rung.tokens or short:
                problems.append(
                    f"rung {rung.d_model}x{rung.n_layers}: each horizon must hold at "
                    "least two global batches"
                )
        if problems:
            raise RecipeError("; ".join(problems), where="ladder recipe")

    def run_recipe(self, rung: RungConfig, tokens: int, trunk: int = 0) -> TrainRecipe:
        """The full recipe of the run of `rung` with this horizon, on its trunk number `trunk`.

        Runs of one trunk differ in `tokens` alone, so that each is what a run from scratch to its
        horizon would be.
        """
        rate = self.width_rule.learning_rate(self.optimizer.learning_rate, rung.d_model)
        return TrainRecipe(
            data=self.data,
            model=replace(self.model, d_model=rung.d_model, n_layers=rung.n_layers),
            optimizer=replace(self.optimizer, learning_rate=rate),
            train=replace(
                self.train,
                tokens=self.whole_batches(tokens),
                seed=self.train.seed + SEED_STEP * trunk,
            ),
            guard=self.guard,
        )

    def whole_batches(self, tokens: int) -> int:
        """`tokens` rounded down to whole global batches."""
        batch = self.train.global_batch_tokens
        return tokens // batch * batch

    def decay_start(self, tokens: int) -> int:
        """The token count at which a run to this horizon leaves the trunk, in whole batches."""
        stable = (1 - self.optimizer.decay_fraction) * self.whole_batches(tokens)
        return self.whole_batches(int(stable))
