"""The dynamic loss scale of float16 training; no other format has one.

float16 ends at 6·10⁻⁸ below and 65,504 above: gradients are made a power of two larger in the
backward pass, which costs no bits, and smaller again before they are used (Micikevicius et al.
2018, section 3.2). Not for judging losses (`guard.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FLOOR, CEILING = 1.0, 2.0**24
PATIENCE = 1000
"""Steps without overflow after which the scale is doubled."""


@dataclass(frozen=True)
class LossScale:
    """The scale and how it fared; part of a checkpoint."""

    value: float = 2.0**16
    """By what the loss is multiplied: a power of two."""
    calm: int = 0
    """Steps without overflow since it last changed."""
    overflows: int = 0
    """Steps left out because the scaled gradient overflowed."""

    def is_too_large(self, loss: float, grad_norm: float) -> bool:
        """Whether a gradient that is not finite may be the scale's doing: the loss, which is not
        scaled, is finite and the scale can still fall."""
        return math.isfinite(loss) and not math.isfinite(grad_norm) and self.value > FLOOR

    def halved(self) -> LossScale:
        """After an overflow."""
        return LossScale(max(FLOOR, self.value / 2), overflows=self.overflows + 1)

    def after_good_step(self) -> LossScale:
        """After a step without one: doubled once it has stayed calm long enough."""
        if self.calm + 1 < PATIENCE:
            return replace(self, calm=self.calm + 1)
        return replace(self, value=min(CEILING, 2 * self.value), calm=0)
