"""How many tokens each step takes, where the batch grows at the start of a run.

Not for the rate of learning over time (`schedules.py`) nor for micro-batches.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class BatchRamp:
    """The global batch of every step: it grows in a straight line over the first tokens.

    Brown et al. (2020) raise it so over the first billions of tokens: early gradients agree with
    each other, so that small batches learn as much from each step.
    """

    full: int
    """Tokens of a step after the ramp."""
    initial: int
    """Tokens of the first step."""
    ramp_tokens: int
    """Tokens over which the batch grows."""
    unit: int
    """Batches are whole multiples of this (a micro-batch)."""

    @cached_property
    def _starts(self) -> list[int]:
        """Tokens before each step of the ramp, and before the first full one."""
        starts = [0]
        while self.initial < self.full and starts[-1] < self.ramp_tokens:
            share = starts[-1] / self.ramp_tokens
            wanted = self.initial + share * (self.full - self.initial)
            starts.append(starts[-1] + max(1, int(wanted) // self.unit) * self.unit)
        return starts

    def first_token(self, step: int) -> int:
        """Tokens taken before `step` (from 0)."""
        ramp = len(self._starts) - 1
        if step <= ramp:
            return self._starts[step]
        return self._starts[ramp] + (step - ramp) * self.full

    def batch_tokens(self, step: int) -> int:
        """Tokens of `step`."""
        return self.first_token(step + 1) - self.first_token(step)

    def steps(self, tokens: int) -> int:
        """Whole steps within so many tokens."""
        last = self._starts[-1]
        if tokens >= last:
            return len(self._starts) - 1 + (tokens - last) // self.full
        return bisect_right(self._starts, tokens) - 1
