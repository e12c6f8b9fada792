"""What-if tables: a run with more or less of everything, by any law; not a search for the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Optimal, Prediction

FACTORS = (0.5, 2.0, 4.0, 10.0)


class PredictingLaw(Protocol):
    """What a law must be able to do."""

    def predict(self, params: float, tokens: float, level: float = 0.9) -> Prediction:
        """The loss of a run."""
        ...


class DividingLaw(PredictingLaw, Protocol):
    """A law that also divides a budget."""

    def optimal(self, flops: float, level: float = 0.9) -> Optimal:
        """The best size and horizon."""
        ...


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    change: str
    params: float
    tokens: float
    flops: float
    loss: Prediction
    difference: float
    """Relative difference of the loss to the run asked about; negative is better."""

    def to_dict(self) -> dict[str, Any]:
        """The row as the command line prints it."""
        return {**asdict(self), "loss": self.loss.to_dict()}


def what_if(
    law: PredictingLaw,
    params: float,
    tokens: float,
    factors: Sequence[float] = FACTORS,
    level: float = 0.9,
) -> tuple[Variant, ...]:
    """The run itself, then with other parameters, other tokens and both, by each factor.

    "Both" multiplies the compute by the factor and each of size and data by its root.

    Raises:
        TableError: A factor, `params` or `tokens` is not positive, or the law cannot predict.
    """
    for factor in factors:
        if not (np.isfinite(factor) and factor > 0.0):
            raise TableError(f"a factor must be positive, not {factor:g}", where="factors")
    asked = [("as asked", params, tokens)]
    asked += [(f"parameters × {f:g}", params * f, tokens) for f in factors]
    asked += [(f"tokens × {f:g}", params, tokens * f) for f in factors]
    asked += [(f"compute × {f:g}", params * f**0.5, tokens * f**0.5) for f in factors]
    return _variants(law, asked, level)


def what_if_budget(
    law: DividingLaw, flops: float, factors: Sequence[float] = FACTORS, level: float = 0.9
) -> tuple[Variant, ...]:
    """The best run for a budget and for multiples of it; then the same compute at other sizes.

    Raises:
        TableError: `flops` or a factor is not positive, or the law divides no budget.
    """
    for factor in factors:
        if not (np.isfinite(factor) and factor > 0.0):
            raise TableError(f"a factor must be positive, not {factor:g}", where="factors")
    best = law.optimal(flops, level)
    asked = [("best division", best.params, best.tokens)]
    for factor in factors:
        other = law.optimal(factor * flops, level)
        asked.append((f"compute × {factor:g}, best division", other.params, other.tokens))
    asked += [(f"same compute, size × {f:g}", best.params * f, best.tokens / f) for f in factors]
    return _variants(law, asked, level)


def _variants(
    law: PredictingLaw, asked: Sequence[tuple[str, float, float]], level: float
) -> tuple[Variant, ...]:
    losses = [law.predict(params, tokens, level) for _, params, tokens in asked]
    return tuple(
        Variant(
            change,
            params,
            tokens,
            FLOPS_PER_PARAMETER_TOKEN * params * tokens,
            loss,
            loss.loss / losses[0].loss - 1.0,
        )
        for (change, params, tokens), loss in zip(asked, losses, strict=True)
    )
