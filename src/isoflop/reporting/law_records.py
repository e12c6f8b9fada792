"""What the figures of a law show, as plain values; neither how it is computed nor how it looks."""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[float, float]


@dataclass(frozen=True)
class Frontier:
    """The lowest loss that each amount of compute can buy, by a law."""

    points: tuple[tuple[float, float, float, float], ...]
    """(flops, loss, low, high), flops increasing."""
    level: float
    """Probability of the band."""
    fitted_to: float
    """FLOPs of the largest run behind the law: beyond, the frontier is a forecast."""
    asked: tuple[float, float, float, float] | None = None
    """(flops, loss, low, high) of a run asked about."""


@dataclass(frozen=True)
class Budget:
    """Runs of equal compute and the valley through them."""

    flops: float
    runs: tuple[tuple[float, float], ...]
    """(params, loss) as measured; empty where the law alone draws the valley."""
    valley: tuple[tuple[float, float], ...]
    """(params, loss) along the parabola or the law."""
    lowest: tuple[float, float] | None
    """(params, loss) of the valley's lowest point."""


@dataclass(frozen=True)
class Division:
    """How a law divides compute between size and data."""

    name: str
    points: tuple[tuple[float, float, float], ...]
    """(flops, params, tokens), flops increasing."""
    own: bool
    """Whether it is the law the figure is about."""
    fitted: Span | None
    """FLOPs of the smallest and the largest run behind it, where known."""


@dataclass(frozen=True)
class KnownRun:
    """A model of the literature."""

    name: str
    flops: float
    params: float
    """Those used per token."""
    tokens: float


@dataclass(frozen=True)
class Profile:
    """How much worse the best fit becomes when one parameter is held at other values."""

    name: str
    best: float
    points: tuple[tuple[float, float], ...]
    """(value, drop): drop is twice the log likelihood lost; 3.84 bounds the 95 % interval."""
    low: float | None
    high: float | None
    """Where the drop crosses 3.84; None where it does not."""


@dataclass(frozen=True)
class Basin:
    """Loss against the learning rate at one setting of size and data."""

    params: float
    tokens: float
    runs: tuple[tuple[float, float], ...]
    """(learning rate, percent of loss above the lowest of the setting's valley)."""
    valley: tuple[tuple[float, float], ...]
    """The same along the law."""
    best: float
    """Learning rate of least loss."""
    good: Span
    """Learning rates that lose at most 0.25 % of the loss."""


@dataclass(frozen=True)
class Fan:
    """A run in flight and what was said of its end on the way."""

    run_id: str
    end: float
    """Steps of the whole schedule."""
    seen: tuple[tuple[float, float], ...]
    """(step, loss), measured."""
    forecasts: tuple[tuple[float, float, float, float], ...]
    """(step, value, low, high): the final loss as foretold at that step."""
    level: float
    outcome: float | None = None
    """Final loss, where the run has ended."""
    promise: tuple[float, float, float] | None = None
    """(value, low, high) from before the run."""
    target: float | None = None
    """Loss the run is to reach."""


@dataclass(frozen=True)
class Coverage:
    """How often intervals of one level held."""

    level: float
    held: int
    scored: int


@dataclass(frozen=True)
class Trend:
    """One quantity against another by a law, with its band and what was measured."""

    title: str
    x_name: str
    y_name: str
    points: tuple[tuple[float, float, float, float], ...]
    """(x, value, low, high), x increasing."""
    level: float
    """Probability of the band."""
    runs: tuple[tuple[float, float, str], ...] = ()
    """(x, y, words) as measured."""
    fitted: Span | None = None
    """x of the first and the last run behind the law, where known: dashed beyond."""
    asked: tuple[float, float, float, float] | None = None
    """(x, value, low, high) that was asked for."""
    log: bool = True
    """Whether x is drawn logarithmically."""


@dataclass(frozen=True)
class Misfit:
    """How far measured values lie from the law, against the law's own value."""

    x_name: str
    y_name: str
    groups: tuple[tuple[str, tuple[tuple[float, float, str], ...]], ...]
    """(name, ((law's value, distance, words), ...))."""
    log: bool = False


@dataclass(frozen=True)
class LossCurve:
    """A run's loss while it trained, and the law's."""

    name: str
    seen: tuple[tuple[float, float], ...]
    """(step, loss), measured."""
    law: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class LawFigures:
    """The figures that a law and its runs allow; an empty one is not drawn."""

    frontier: Frontier | None = None
    budgets: tuple[Budget, ...] = ()
    budgets_measured: bool = False
    """Whether the valleys are parabolas through runs of equal compute, or drawn by the law."""
    divisions: tuple[Division, ...] = ()
    models: tuple[KnownRun, ...] = ()
    profiles: tuple[Profile, ...] = ()
    profiled: str = ""
    """The form they are of: an average has none of its own."""
    basins: tuple[Basin, ...] = ()
    trends: tuple[Trend, ...] = ()
    misfit: Misfit | None = None
    curves: tuple[LossCurve, ...] = ()
    fans: tuple[Fan, ...] = ()
