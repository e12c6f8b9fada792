"""What a pre-training run is: the recipe as frozen dataclasses, checked as a whole; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.models.recipe import ModelConfig
from isoflop.training.batch_ramp import BatchRamp
from isoflop.training.forecast_recipe import ForecastConfig, forecast_problems
from isoflop.training.guard_recipe import GuardConfig, guard_problems
from isoflop.training.objective_recipe import Kind, ObjectiveConfig, objective_problems
from isoflop.training.optimizer_recipe import OptimizerConfig, optimizer_problems
from isoflop.training.parallel.recipe import (
    ParallelConfig,
    parallel_problems,
    single_process_problems,
)


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
    pairs: Path | None = None
    """In place of shards: a file of JSON lines {"source": ..., "target": ...}, one pair each."""
    tokenizer: Path | None = None
    """Of the pairs; a directory made by `isoflop tokenizer train`."""
    packing: Literal["stream", "best-fit", "buckets", "streams"] = "stream"
    """stream: documents one after the other, cut where a sequence ends; best-fit: whole
    documents packed into sequences, with a little padding; buckets: documents (long ones in
    pieces) in batches of their own length; streams: the text in its own order, every row going on
    where it stopped (truncated back-propagation through time)."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems = []
        given = (self.shards is not None, bool(self.mixture), self.pairs is not None)
        if sum(given) != 1:
            problems.append("give either data.shards or [[data.mixture]] tables or data.pairs")
        if (self.tokenizer is None) != (self.pairs is None):
            problems.append("data.pairs and data.tokenizer go together")
        if self.mixture and self.packing in ("buckets", "streams"):
            problems.append(f"data.packing = {self.packing} is for one shard directory")
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
        weighed = [s.weight is not None or bool(s.curriculum) for s in self.mixture]
        if any(weighed) and not all(weighed):
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
        if self.pairs is not None:
            return ()
        return tuple(source.shards for source in self.mixture)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are read beside shards."""
        if self.pairs is None or self.tokenizer is None:
            return ()
        return (self.pairs, self.tokenizer / "tokenizer.json")


@dataclass(frozen=True)
class TrainConfig:
    """How long, on which batches, and what is written down."""

    tokens: int = 5_000_000
    """Training tokens; rounded down to whole global batches."""
    seq_len: int = 256
    """Tokens per sequence."""
    global_batch_tokens: int = 8192
    """Tokens per optimizer step, over all devices."""
    initial_batch_tokens: int | None = None
    """Tokens of the first step, where the batch is to grow; global_batch_tokens if not given."""
    batch_ramp_tokens: int = 0
    """Tokens over which the batch grows to global_batch_tokens."""
    micro_batch_tokens: int = 4096
    """Tokens per forward and backward pass on one device; changes speed and memory only."""
    seed: int = 0
    """Fixes initial weights and data order."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Number format of matrix products; weights stay float32. auto: bfloat16 where it measures
    faster by enough (`isoflop doctor`). float16 has a loss scale."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: on a CUDA device where there is one."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations that are computed again in the backward pass instead of kept: none; selective:
    those of attention, or as few layers as activation_bytes asks for; full: all but the layers'
    inputs. The same bits, in more time and less memory."""
    activation_bytes: int | None = None
    """With recompute = selective: bytes that the activations of a micro-batch may take."""
    compile: Literal[False, True, "auto"] = False
    """Whether torch.compile makes the layers' kernels; auto: where it measures faster. Without a
    compiler the run goes on as it is, and events.jsonl says why."""
    native_kernels: bool = True
    """On the CPU, whether a small native library does what lies between the matrix products. It is
    built once by the machine's C++ compiler; without one plain torch does the same, slower."""
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
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is foretold."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, batches, logging."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Bad batches and bad steps."""
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    """The run's end, foretold while it goes on."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How it is laid out over processes."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise RecipeError("; ".join(problems), where="train recipe")

    @property
    def kind(self) -> Kind:
        """The objective: as given, or what the architecture and the data are for."""
        if self.objective.kind is not None:
            return self.objective.kind
        if self.data.pairs is not None:
            return "seq2seq"
        found: dict[str, Kind] = {"bert": "masked", "t5": "spans"}
        return found.get(self.model.resolved_architecture, "causal")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.batch_ramp.steps(self.train.tokens)

    @property
    def batch_ramp(self) -> BatchRamp:
        """Tokens of every step."""
        train = self.train
        return BatchRamp(
            full=train.global_batch_tokens,
            initial=train.initial_batch_tokens or train.global_batch_tokens,
            ramp_tokens=train.batch_ramp_tokens,
            unit=train.micro_batch_tokens,
        )


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
    found += _ramp_problems(train)
    if any(at % train.global_batch_tokens for at in train.keep_checkpoints_at):
        found.append("train.keep_checkpoints_at must hold multiples of train.global_batch_tokens")
    if train.activation_bytes is not None and train.recompute != "selective":
        found.append("train.activation_bytes is for train.recompute = selective")
    if train.threads is not None and train.threads < 1:
        found.append(f"train.threads = {train.threads} must be at least 1")
    found += optimizer_problems(optimizer)
    found += guard_problems(recipe.guard)
    found += forecast_problems(recipe.forecast)
    found += parallel_problems(recipe.parallel)
    if recipe.parallel.devices > 1:
        found += _single_process_problems(recipe)
    unfit = model.problems()
    return found + (unfit or list(_objective_problems(recipe)))


def _single_process_problems(recipe: TrainRecipe) -> Iterator[str]:
    """What is not there for several processes."""
    if recipe.train.compile:
        yield "train.compile is for one process"
    if recipe.parallel.interleave > 1 and recipe.train.initial_batch_tokens is not None:
        yield "parallel.interleave is for batches that do not grow"
    yield from single_process_problems(recipe.optimizer)
    if recipe.kind != "causal":
        yield f"objective.kind = {recipe.kind} is for one process"
    if recipe.data.packing in ("buckets", "streams"):
        yield f"data.packing = {recipe.data.packing} is for one process"


def _objective_problems(recipe: TrainRecipe) -> Iterator[str]:
    data, kind = recipe.data, recipe.kind
    architecture = recipe.model.resolved_architecture
    yield from objective_problems(
        recipe.objective, kind, architecture, data.packing, recipe.train.seq_len
    )
    if (kind == "seq2seq") != (data.pairs is not None):
        yield f"objective.kind = {kind}: seq2seq and data.pairs go together"
    if data.packing in ("buckets", "streams") and recipe.train.initial_batch_tokens is not None:
        yield f"data.packing = {data.packing} is for batches that do not grow"
    if kind != "causal" and data.mixture:
        yield f"a mixture is for causal models, not for {kind}"
    if kind != "causal" and (recipe.optimizer.base_width or recipe.optimizer.base_depth):
        yield "optimizer.base_width and base_depth are for decoders"


def _ramp_problems(train: TrainConfig) -> Iterator[str]:
    initial = train.initial_batch_tokens
    if initial is None:
        if train.batch_ramp_tokens:
            yield "train.batch_ramp_tokens needs train.initial_batch_tokens to grow from"
        return
    if not train.micro_batch_tokens <= initial <= train.global_batch_tokens:
        yield (
            f"train.initial_batch_tokens = {initial} must lie between micro_batch_tokens and "
            "global_batch_tokens"
        )
    if train.batch_ramp_tokens < 1:
        yield "train.initial_batch_tokens needs train.batch_ramp_tokens of at least 1"
    if train.keep_checkpoints_at:
        yield "train.keep_checkpoints_at is for runs whose batch does not grow"
