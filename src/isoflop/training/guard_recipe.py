"""When a run protects itself from bad batches and bad steps: the recipe's table; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GuardConfig:
    """What happens when a step is not finite or its loss jumps."""

    non_finite: Literal["skip", "stop"] = "skip"
    """A loss or gradient that overflows: leave that step out, or stop the run."""
    spike_z: float = 12.0
    """Leave out a step whose loss lies this many robust standard deviations above the median of
    the last `window` steps, or with which the median of eight losses lies half as many above it;
    0 for never."""
    window: int = 100
    """Steps whose losses a new one is compared with; nothing is judged before half of them."""
    max_skips: int = 5
    """Steps left out in a row before the run goes back to a checkpoint, past their batches."""
    max_rollbacks: int = 2
    """Returns to a checkpoint, without a window of good steps in between, before it stops."""
    attention_logit_bound: float = 100.0
    """An attention logit above this, at an evaluation, is an event; 0 for never. At 100 Kimi K2 was
    clipped (Kimi Team 2025)."""


def guard_problems(config: GuardConfig) -> Iterator[str]:
    """What is impossible in a guard's table, one phrase each."""
    if config.spike_z < 0:
        yield f"guard.spike_z = {config.spike_z} must not be negative"
    if config.attention_logit_bound < 0:
        yield f"guard.attention_logit_bound = {config.attention_logit_bound} must not be negative"
    if config.window < 8:
        yield f"guard.window = {config.window} must be at least 8"
    for name in ("max_skips", "max_rollbacks"):
        if getattr(config, name) < 0:
            yield f"guard.{name} = {getattr(config, name)} must not be negative"
