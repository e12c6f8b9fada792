"""What a report says of alignment, compression, serving and comparisons, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure before and after; either may be unknown."""

    name: str
    before: float | None
    after: float | None
    share: bool = False
    """Whether it is a share, written in percent."""


@dataclass(frozen=True)
class Pair:
    """What a model answered to one prompt before and after."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Aligned:
    """One run of SFT, reward, DPO, PPO or GRPO."""

    name: str
    stage: str
    figures: tuple[Figure, ...]
    path: tuple[tuple[float, float], ...] = ()
    """(divergence from the reference in nats per answer, reward) round by round."""
    frontier: tuple[tuple[float, float], ...] = ()
    """The most reward at each divergence, foretold before the run from the reference's answers."""
    pairs: tuple[Pair, ...] = ()
    """From its first evaluation to its last."""


@dataclass(frozen=True)
class Compressed:
    """One compressed model."""

    name: str
    method: str
    size_percent: float
    """Bytes of the weights, of the full model's in float32."""
    added_percent: float
    """Held-out loss added, of the full model's."""
    low: float
    high: float
    """The interval promised for that, in percent."""
    held: bool | None
    flipped: float
    """Share of tokens whose likeliest successor changed."""


@dataclass(frozen=True)
class Latency:
    """One quantity of the server's histograms."""

    name: str
    count: int
    quantiles: tuple[tuple[float, float], ...]
    """(share of requests, seconds within which they were): ends of the histogram's buckets,
    between which the truth is not known."""


@dataclass(frozen=True)
class Served:
    """A server's own metrics, as `/metrics` gave them."""

    name: str
    latencies: tuple[Latency, ...]
    counters: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Exchange:
    """One question to a server and its reply."""

    kind: str
    """`chat`, `tool call` or `refused`: what the question was to show."""
    question: str
    answer: str
    """What the model said; the server's reason, where it refused."""
    calls: tuple[tuple[str, str], ...]
    """Tools that the server ran: name and arguments."""
    status: int
    """Of HTTP: 200, or 4xx where the server refused."""
    shown: bool
    """Whether it showed what it was to show: an answer, an answer after a call, or a refusal."""


@dataclass(frozen=True)
class Score:
    """What one model scored on a task."""

    task: str
    metric: str
    score: float
    low: float | None
    """Of the 95 % interval."""
    high: float | None
    chance: float | None
    items: int


@dataclass(frozen=True)
class Paired:
    """One task or figure of two models side by side."""

    name: str
    first: float | None
    second: float | None
    difference: float | None
    """Second less first."""
    low: float | None = None
    high: float | None = None
    """95 % interval of the difference, paired by item; None where items cannot be paired."""
    p: float | None = None
    """Of a paired test that there is none: McNemar's exact, or by bootstrap."""
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two runs, demos or evaluations side by side."""

    first: str
    second: str
    rows: tuple[Paired, ...]
