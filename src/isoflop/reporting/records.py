"""What a report says, as plain values; neither how it is read from disk nor how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isoflop.core.ledger import Promise, Tally
from isoflop.reporting.law_records import Fan, LawFigures
from isoflop.reporting.stage_records import (
    Aligned,
    Comparison,
    Compressed,
    Exchange,
    Score,
    Served,
)


@dataclass(frozen=True)
class Verdict:
    """The promised loss of the target and what became of it."""

    value: float
    """Promised loss, nats per token."""
    low: float
    high: float
    level: float
    """Probability the interval was promised to hold with, e.g. 0.9."""
    outcome: float | None
    """Measured loss; None while the target has not ended."""
    unit: str = "nats/token"

    @property
    def held(self) -> bool | None:
        """Whether the outcome lies inside the interval, its ends included."""
        return None if self.outcome is None else self.low <= self.outcome <= self.high

    @property
    def error_percent(self) -> float | None:
        """(outcome − promise) / outcome, in percent."""
        if self.outcome is None:
            return None
        return 100 * (self.outcome - self.value) / self.outcome


@dataclass(frozen=True)
class Target:
    """The run that was foretold."""

    params: float
    tokens: float
    flops: float


@dataclass(frozen=True)
class Rung:
    """One finished run of the ladder: a row of `runs.csv` and what the law says of it."""

    run_id: str
    params: float
    tokens: float
    loss: float
    flops: float
    predicted: float | None = None
    """The law's loss for this run (fitted on it), nats per token."""
    bits_per_byte: float | None = None
    learning_rate: float | None = None
    batch_tokens: float | None = None
    seconds: float | None = None
    schedule: str = ""

    @property
    def residual_percent(self) -> float | None:
        """(measured − predicted) / measured, in percent."""
        return None if self.predicted is None else 100 * (self.loss - self.predicted) / self.loss


@dataclass(frozen=True)
class TrainingPoint:
    """Training loss over a stretch of steps: many logged lines folded into one."""

    tokens: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Mark:
    """Something that happened to a run: a spike, a skipped batch, a step back."""

    event: str
    step: int
    tokens: float
    what: str


@dataclass(frozen=True)
class Curve:
    """The loss of one run while it trained."""

    name: str
    params: float | None
    is_target: bool
    training: tuple[TrainingPoint, ...]
    held_out: tuple[tuple[float, float], ...]
    """(tokens, loss) of each evaluation on held-out text."""
    lines_read: int
    """Metric lines behind `training`."""
    floor: float | None = None
    """What the law gives this size for endless data, nats per token."""
    marks: tuple[Mark, ...] = ()
    """What went wrong on the way."""


@dataclass(frozen=True)
class Parameter:
    """One fitted number of a law."""

    name: str
    value: float
    stderr: float | None


@dataclass(frozen=True)
class SizeFit:
    """The law for one model size: (flops, loss) along growing tokens."""

    params: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Law:
    """A fitted scaling law and what it says over the range the report draws."""

    form: str
    formula: str
    parameters: tuple[Parameter, ...]
    objective: str
    n_runs: int
    domain: dict[str, tuple[float, float]]
    noise: dict[str, float]
    warnings: tuple[str, ...]
    verdict: str
    fits: tuple[SizeFit, ...] = ()
    path: tuple[tuple[float, float, float, float], ...] = ()
    """(flops, loss, low, high) for runs with the target's tokens per parameter."""
    path_level: float = 0.9
    figures: LawFigures = field(default_factory=LawFigures)


@dataclass(frozen=True)
class Sample:
    """Text the model wrote after a prompt."""

    step: int
    tokens: float
    prompt: str
    text: str
    surprisal: tuple[tuple[str, float], ...] = ()
    """(piece, bits) of each token of what it wrote, where the model was asked."""


@dataclass(frozen=True)
class Stage:
    """What one stage of the work cost."""

    name: str
    seconds: float
    promised_seconds: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Cost:
    """Time and arithmetic, against the machine's measured peak where that is known."""

    stages: tuple[Stage, ...]
    peak_gflops: float | None
    """Largest GFLOP/s measured on this machine with the dtype and threads used."""


@dataclass(frozen=True)
class FunnelRow:
    """Documents with one fate: a reason they were dropped for, or the source they came from."""

    name: str
    documents: int
    bytes: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Funnel:
    """From the documents found to the documents kept."""

    documents_in: int
    bytes_in: int
    dropped: tuple[FunnelRow, ...]
    kept: tuple[FunnelRow, ...]


@dataclass(frozen=True)
class Artifact:
    """One directory behind the report, as its manifest describes it."""

    name: str
    kind: str
    created: str
    sha256: str
    """Of the manifest itself, which vouches for every file."""
    inputs: tuple[str, ...]
    commands: tuple[str, ...] = ()
    """Command lines that make it again."""


@dataclass(frozen=True)
class Lineage:
    """Where everything came from and how to have it again."""

    command: str
    artifacts: tuple[Artifact, ...]
    machine: dict[str, str]
    seed: int | None


@dataclass(frozen=True)
class Report:
    """Everything one page shows. A part that is None or empty has no section."""

    title: str
    created: str
    """When the newest artifact behind the report was finished (not when the page was made)."""
    verdict: Verdict | None = None
    target: Target | None = None
    rungs: tuple[Rung, ...] = ()
    curves: tuple[Curve, ...] = ()
    fans: tuple[Fan, ...] = ()
    """What runs said of their own ends on the way."""
    law: Law | None = None
    promises: tuple[Promise, ...] = ()
    tallies: tuple[Tally, ...] = ()
    """How the promises of each level fared."""
    ledger_head: str = ""
    """Hash of the ledger's last line: proves later that nothing was cut off."""
    abilities: dict[str, Any] | None = None
    """What the ladder's runs can do: the document of `abilities.json`."""
    samples: tuple[Sample, ...] = ()
    cost: Cost | None = None
    funnel: Funnel | None = None
    lineage: Lineage | None = None
    aligned: tuple[Aligned, ...] = ()
    """Runs of SFT, reward, DPO, PPO and GRPO."""
    compressed: tuple[Compressed, ...] = ()
    served: tuple[Served, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    """What a server was asked and said."""
    scores: tuple[Score, ...] = ()
    """Of the finished model."""
    comparison: Comparison | None = None
    seconds: float | None = None
    """Wall time of the whole work."""
    promised_seconds: float | None = None
    notes: tuple[str, ...] = ()
    """What the reader should know about the inputs, e.g. a line cut short by a killed run."""
