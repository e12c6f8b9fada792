"""Axes: where a value falls in pixels and which round values deserve a tick; draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from isoflop.reporting import numbers


@dataclass(frozen=True)
class Tick:
    """One mark on an axis."""

    value: float
    label: str
    """Empty for a mark without words."""
    major: bool


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from data to pixels."""

    low: float
    """Data at pixel `start`; > 0 on a logarithmic axis."""
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        return self.start + self.fraction(value) * (self.end - self.start)

    def fraction(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        """Whether the value is finite and inside the axis, its ends included."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return False
        return -1e-9 <= self.fraction(value) <= 1 + 1e-9


def extent(
    values: Iterable[float], *, log: bool = False, margin: float = 0.05
) -> tuple[float, float]:
    """The span of the finite (on a log axis: positive) values, widened by a share of itself.

    Returns a span of non-zero width even for one value or none.
    """
    kept = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not kept:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(kept), max(kept)
    if log:
        if high / low < 1.001:
            return low / 2, high * 2
        widen = (high / low) ** margin
        return low / widen, high * widen
    width = high - low or abs(high) * 0.1 or 1.0
    return low - margin * width, high + margin * width


def usual_extent(values: Sequence[float], margin: float = 0.05) -> tuple[float, float]:
    """The span of all values but the few that would squeeze the others into a strip.

    A tenth at either end is left out where it lies further out than the other nine span.
    """
    kept = sorted(v for v in values if math.isfinite(v))
    if len(kept) < 10:
        return extent(kept, margin=margin)
    few = len(kept) // 10
    low, high = kept[few], kept[-1 - few]
    middle = high - low
    # What lies a little outside the middle is still shown.
    low = min(v for v in kept if v >= low - (0.75 if low - kept[0] > middle else 1.0) * middle)
    high = max(v for v in kept if v <= high + (0.75 if kept[-1] - high > middle else 1.0) * middle)
    return extent((low, high), margin=margin)


def linear_ticks(scale: Scale, wanted: int = 5) -> tuple[Tick, ...]:
    """Multiples of 1, 2 or 5 times a power of ten, about `wanted` of them."""
    rough = (scale.high - scale.low) / max(1, wanted)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.8)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return tuple(
        Tick(i * step, f"{i * step:.{decimals}f}".replace("-", numbers.MINUS), True)
        for i in range(first, last + 1)
    )


def log_ticks(
    scale: Scale, label: Callable[[float], str], *, min_gap: float = 46.0
) -> tuple[Tick, ...]:
    """Powers of ten, and 2 and 5 times them with words where there is room.

    Args:
        label: The words of a tick.
        min_gap: Pixels two neighbouring words need.
    """
    exponents = range(math.floor(math.log10(scale.low)) - 1, math.ceil(math.log10(scale.high)) + 1)
    inside = [
        (m, e, m * 10.0**e) for e in exponents for m in range(1, 10) if scale.holds(m * 10.0**e)
    ]
    decade = abs(scale.end - scale.start) / math.log10(scale.high / scale.low)
    every = max(1, math.ceil(min_gap / decade))  # decades between two words
    worded: tuple[int, ...] = (1,)
    if decade * math.log10(2) >= min_gap:  # the gap between 1 and 2, and between 5 and 10
        worded = (1, 2, 5)
    elif decade * math.log10(3) >= min_gap:
        worded = (1, 3)
    return tuple(
        Tick(
            value,
            label(value) if mantissa in worded and (mantissa > 1 or e % every == 0) else "",
            mantissa == 1,
        )
        for mantissa, e, value in inside
    )


def value_ticks(scale: Scale, wanted: int = 5) -> tuple[Tick, ...]:
    """Round values for an axis read as plain numbers, linear or a short logarithmic one."""
    if not scale.log:
        return linear_ticks(scale, wanted)
    exponents = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    round_ones = [m * 10.0**e for e in exponents for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    gap = abs(scale.end - scale.start) / max(1, wanted) * 0.5
    kept: list[float] = []
    for value in filter(scale.holds, round_ones):
        if not kept or abs(scale(value) - scale(kept[-1])) >= gap:
            kept.append(value)
    if len(kept) < 3:  # a short span holds too few of these; there a log axis is nearly linear
        return linear_ticks(scale, wanted)
    return tuple(Tick(value, f"{value:g}", True) for value in kept)


def compute_label(flops: float) -> str:
    """`10¹²`, or `2·10¹²` between powers."""
    exponent = math.floor(math.log10(flops) + 1e-9)
    mantissa = round(flops / 10.0**exponent)
    if mantissa == 10:
        exponent, mantissa = exponent + 1, 1
    power = numbers.power_of_ten(exponent)
    return power if mantissa == 1 else f"{mantissa}·{power}"


def count_label(value: float) -> str:
    """`200 k`, `1 M`."""
    return numbers.count(value)


def spread_labels(positions: list[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart along one axis so that neighbours are at least `gap` pixels away.

    Keeps their order and, where it can, their places; the result lies inside [low, high] when
    that is wide enough. Groups that collide share the displacement (pool adjacent violators).
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    # After subtracting gap·rank, "at least gap apart" is "not decreasing": isotonic regression.
    blocks: list[tuple[float, int]] = []  # (mean, size)
    for rank, i in enumerate(order):
        mean, members = positions[i] - gap * rank, 1
        while blocks and blocks[-1][0] > mean:
            other, size = blocks.pop()
            mean = (mean * members + other * size) / (members + size)
            members += size
        blocks.append((mean, members))
    ceiling = high - gap * (len(positions) - 1)
    placed = [max(low, min(mean, ceiling)) for mean, members in blocks for _ in range(members)]
    result = [0.0] * len(positions)
    for rank, i in enumerate(order):
        result[i] = placed[rank] + gap * rank
    return result
