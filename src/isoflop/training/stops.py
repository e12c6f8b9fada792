"""Why a run ends before its last step: errors, a forecast, a signal; not for judging it."""

from __future__ import annotations

import signal

from isoflop.core.errors import RunError
from isoflop.training.guard import Fault


class NotFinite(RunError):
    """The loss or its gradient overflowed; the run stops before they reach the weights."""


class EarlyStop(RunError):
    """The forecast said that going on is not worth it, and the recipe to stop then."""


class Diverged(RunError):
    """Neither leaving steps out nor going back brought the run on course."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved itself; the same command continues it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; checkpoint written")
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        # Exceptions pickle by their message alone; a worker sends this one to its parent.
        return (Interrupted, (self.signal_number,))


def not_finite(fault: Fault, step: int) -> NotFinite:
    """The error of a step (from 0) whose loss or gradient is no number."""
    return NotFinite(
        fault.what,
        where=f"step {step + 1}",
        fix="Lower optimizer.learning_rate or lengthen the warm-up; the checkpoint before "
        "this step is untouched",
    )
