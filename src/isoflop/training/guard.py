"""Judges each step before it reaches the weights: not finite, a spike, a rise, or fit to be taken.

Not for acting on it: the loop (`loop.py`) leaves the step out, goes back or stops.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace

from isoflop.training.guard_recipe import GuardConfig

_NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""
_LEAST_SPREAD = 1e-3
"""Spread of the losses as a share of their median below which it is not believed: repeated data
may be learned to near equality, where any batch would seem far off."""

_LASTING = 8
"""Steps over whose median a rise is looked for: a step that spoilt the weights lifts many losses,
each of them less than a batch of garbage does."""


@dataclass(frozen=True)
class GuardState:
    """What the guard remembers; part of a checkpoint, so that a resumed run judges alike."""

    losses: tuple[float, ...] = ()
    """Mean losses of the last accepted steps, nats per token, newest last."""
    skips: int = 0
    """Steps left out since the last accepted one."""
    rollbacks: int = 0
    """Returns to a checkpoint since the last whole window of accepted steps."""
    since_rollback: int = 0
    """Steps accepted since the last return."""


@dataclass(frozen=True)
class Fault:
    """Why a step must not reach the weights."""

    reason: str
    """`not finite`, `spike` or `rise`."""
    loss: float
    """Mean loss of the step, of a rise the median of the last ones, nats per token."""
    grad_norm: float
    median: float | None = None
    """Median loss of the steps before it."""
    z: float | None = None
    """Robust standard deviations above the median."""

    @property
    def what(self) -> str:
        """The fault in words."""
        if self.median is None:
            return (
                f"the loss ({self.loss:.4g}) or the gradient norm ({self.grad_norm:.4g}) is not "
                "finite"
            )
        which = f"the median loss of {_LASTING} steps" if self.reason == "rise" else "the loss"
        return (
            f"{which} ({self.loss:.4g}) lies {self.z:.0f} robust standard deviations above the "
            f"median ({self.median:.4g}) of the steps before; gradient norm {self.grad_norm:.4g}"
        )


class Guard:
    """Compares each step with those before it."""

    def __init__(self, config: GuardConfig, state: GuardState | None = None) -> None:
        self._config = config
        self.state = state or GuardState()

    def judge(self, loss: float, grad_norm: float) -> Fault | None:
        """Why a step is to be left out; None, and it is remembered, if it may be taken.

        A spike is judged by the loss under weights that were fine a step ago, so a batch of
        garbage is found before it does harm. A harmful step is found by the batches after it: one
        of them is a spike, or the median of eight lies half as far above that of all.
        """
        state, config = self.state, self._config
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            self.state = replace(state, skips=state.skips + 1)
            return Fault("not finite", loss, grad_norm)
        if config.spike_z and len(state.losses) >= config.window // 2:
            median = statistics.median(state.losses)
            deviation = statistics.median(abs(x - median) for x in state.losses)
            spread = max(_NORMAL_MAD * deviation, _LEAST_SPREAD * abs(median))
            last = (*state.losses, loss)[-_LASTING:]
            for reason, found, most in (
                ("spike", loss, config.spike_z),
                ("rise", statistics.median(last), config.spike_z / 2),
            ):
                # Losses that are all exactly 0 have no scale to judge by.
                if spread and (z := (found - median) / spread) > most:
                    self.state = replace(state, skips=state.skips + 1)
                    return Fault(reason, found, grad_norm, median, z)
        calm = state.since_rollback + 1 >= config.window
        self.state = GuardState(
            losses=(*state.losses, loss)[-config.window :],
            rollbacks=0 if calm else state.rollbacks,
            since_rollback=0 if calm or not state.rollbacks else state.since_rollback + 1,
        )
        return None

    @property
    def must_go_back(self) -> bool:
        """Whether too many steps in a row were left out."""
        return self.state.skips > self._config.max_skips

    @property
    def may_go_back(self) -> bool:
        """Whether another return to a checkpoint is allowed."""
        return self.state.rollbacks < self._config.max_rollbacks

    def went_back(self, to: GuardState) -> None:
        """Take up the memory of a checkpoint, counting the return."""
        self.state = replace(to, skips=0, rollbacks=self.state.rollbacks + 1, since_rollback=0)
