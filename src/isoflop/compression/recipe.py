"""How a model is compressed: the options as frozen dataclasses, checked as a whole; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from isoflop.core.errors import RecipeError

Method: TypeAlias = Literal[
    "int8", "int4", "gptq", "magnitude", "wanda", "drop", "distill", "average"
]
METHODS: tuple[str, ...] = get_args(Method)
Score: TypeAlias = Literal["magnitude", "wanda"]
Pattern: TypeAlias = Literal["unstructured", "2:4"]


@dataclass(frozen=True)
class StudentConfig:
    """The smaller model of `drop` and `distill`, and how it is trained."""

    width: int | None = None
    """Of distill: width of its stream; heads and inner widths go with it. Half of the model's when
    neither this nor layers is given."""
    layers: int | None = None
    """Of distill: its layers; as many as the model's when not given."""
    drop_layers: float = 0.0
    """Of drop: share of the layers to take out."""
    drop_heads: float = 0.0
    """Of drop: share of each layer's key-value heads to take out, with their queries."""
    drop_neurons: float = 0.25
    """Of drop: share of each layer's inner neurons to take out."""
    tokens: int = 2_000_000
    """Tokens to train on."""
    batch_tokens: int = 2048
    """Tokens per optimizer step."""
    learning_rate: float = 3e-3
    """Peak learning rate; it rises over the first twentieth and falls over the last fifth."""
    teacher_weight: float = 0.5
    """Weight of the divergence from the full model; the rest goes to the text itself. 0 trains the
    student alone."""
    temperature: float = 1.0
    """Both models' logits are divided by it in the divergence, which is then multiplied by its
    square (Hinton et al. 2015)."""
    hidden_weight: float = 0.0
    """Weight of the distance between the layers' streams, through a learnt map (Romero et al.
    2015); 0 for none."""
    seed: int = 0
    """Fixes initial weights and the order of the text."""
    checkpoint_every: int = 250
    """Steps between checkpoints, from which the same command goes on."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.tokens // self.batch_tokens

    def problems(self, method: Method) -> Iterator[str]:
        """What cannot be, each by the names of its options."""
        for name in ("tokens", "batch_tokens", "checkpoint_every"):
            if getattr(self, name) < 1:
                yield f"student.{name} = {getattr(self, name)} must be at least 1"
        if self.batch_tokens > 0 and self.steps < FEWEST_STEPS:
            yield (
                f"student.tokens = {self.tokens} make {self.steps} steps of student.batch_tokens = "
                f"{self.batch_tokens}, and {FEWEST_STEPS} are needed"
            )
        if not self.learning_rate > 0:
            yield f"student.learning_rate = {self.learning_rate} must be positive"
        if not self.temperature > 0:
            yield f"student.temperature = {self.temperature} must be positive"
        if not 0 <= self.teacher_weight <= 1:
            yield f"student.teacher_weight = {self.teacher_weight} is outside [0, 1]"
        if not self.hidden_weight >= 0:
            yield f"student.hidden_weight = {self.hidden_weight} must not be negative"
        for name in ("width", "layers"):
            size = getattr(self, name)
            if size is not None and method == "drop":
                yield f"student.{name} is for distill; drop takes shares (student.drop_{name[:6]})"
            if size is not None and size < 1:
                yield f"student.{name} = {size} must be at least 1"
        if self.width is not None and self.width % 32:
            yield f"student.width = {self.width} is not a multiple of 32"
        shares = [getattr(self, f"drop_{what}") for what in ("layers", "heads", "neurons")]
        if any(not 0 <= share < 1 for share in shares):
            yield "student.drop_layers, drop_heads and drop_neurons must lie in [0, 1)"
        if method == "drop" and not any(shares):
            yield "drop needs one of student.drop_layers, drop_heads and drop_neurons above 0"


FEWEST_STEPS = 64
"""Steps of a student: pilots take parts of them to foretell what it comes to."""


@dataclass(frozen=True)
class CompressConfig:
    """How a model is compressed.

    Raises:
        RecipeError: Lists every impossible value at once.
    """

    method: Method
    bits: int = 4
    """Of `gptq`: 4 or 8."""
    group: int = 32
    """Columns that share a scale, at 4 bits."""
    sparsity: float = 0.5
    """Share of weights that pruning sets to zero."""
    pattern: Pattern = "unstructured"
    """Which weights pruning may zero: any of a row, or two of four neighbours (`2:4`)."""
    tokens: int = 16_384
    """Tokens to calibrate on, to probe and to judge, each."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """Of `drop` and `distill`."""
    others: tuple[Path, ...] = ()
    """Of `average`: models of the same shape."""

    def __post_init__(self) -> None:
        problems = []
        if self.method not in METHODS:
            problems.append(f"method = {self.method} is none of {', '.join(METHODS)}")
        if self.bits not in (4, 8):
            problems.append(f"bits = {self.bits} must be 4 or 8")
        if self.group < 2 or self.group % 2:
            problems.append(f"group = {self.group} must be even and at least 2")
        if not 0 < self.sparsity < 1:
            problems.append(f"sparsity = {self.sparsity} must lie between 0 and 1")
        if self.pattern == "2:4" and self.sparsity != 0.5:
            problems.append("2:4 removes half of the weights: sparsity = 0.5")
        if self.tokens < 1:
            problems.append(f"tokens = {self.tokens} must be at least 1")
        if (self.method == "average") != bool(self.others):
            problems.append("method average and --others MODEL... go together")
        if self.trains:
            problems += self.student.problems(self.method)
        if problems:
            raise RecipeError("; ".join(problems), where="compress")

    @property
    def packs(self) -> bool:
        """Whether weights are stored in fewer bits."""
        return self.method in ("int8", "int4", "gptq")

    @property
    def trains(self) -> bool:
        """Whether the result is trained, and its directory therefore that of a run."""
        return self.method in ("drop", "distill")
