"""The law behind a plan: a `law.json` of one's own or a law of the literature, by name.

Not for fitting (`laws.fit`). It divides a budget between size and data, and foretells the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from isoflop.core.errors import RecipeError
from isoflop.planning.shape import Count

if TYPE_CHECKING:
    from isoflop.laws.predict import Prediction

DEFAULT = "besiroglu"
DIVIDING = ("frontier", "isoflop")
"""Forms that divide a budget, beside the loss surfaces."""
FLOPS_PER_PARAMETER_TOKEN = 6.0
TRANSFER = 0.05
"""Standard deviation of ln loss, at least, when another's law foretells one's own run: additive
fits miss by 4.2 % in the median at ten times their runs' compute, on public tables."""


OFF_OPTIMUM = 1.5
"""Times the best size, either way, within which a frontier's loss is taken for a run's: by the
published surfaces such a run ends within about 0.2 % of it."""


@dataclass(frozen=True)
class LossLaw:
    """A law over size and tokens, and what its N counts."""

    name: str
    law: Any
    """A loss surface, a frontier, an IsoFLOP law or a published one."""
    count: Count
    source: str
    own: bool
    """Fitted by the user, on their data and tokenizer."""
    losses: LossLaw | None = None
    """The law that foretells the loss, where this one only divides budgets."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before using it."""
        warnings: tuple[str, ...] = self.law.warnings
        if self.losses is None:
            return warnings
        return (
            *warnings,
            f"{self.name} divides budgets and has no formula for the loss: the loss is that of "
            f"{self.losses.name} ({self.losses.source})",
        )

    @property
    def loss_count(self) -> Count:
        """What N counts in `loss`."""
        return self.count if self.losses is None else self.losses.count

    @property
    def verdict(self) -> str:
        """`supported`, or `unsupported: ` and why."""
        verdict: str = self.law.verdict
        return verdict

    def optimal(self, flops: float) -> tuple[float, float]:
        """Parameters (as `count` says) and tokens for 6·params·tokens = `flops`.

        Raises:
            TableError: The law says nothing of allocation.
        """
        best = self.law.optimal(flops)
        return best.params, best.tokens

    def loss(self, params: float, tokens: float, level: float) -> Prediction | None:
        """The loss promised for a run, or None where the law says nothing of such a run.

        The interval of another's law is at least `TRANSFER` wide. A frontier knows runs of about
        the best size only.

        Args:
            params: As `loss_count` says.
        """
        if self.losses is not None:
            return self.losses.loss(params, tokens, level)
        promise: Prediction
        if self.law.form == "frontier":
            flops = FLOPS_PER_PARAMETER_TOKEN * params * tokens
            off = abs(math.log(params / self.law.optimal(flops).params))
            if off > math.log(OFF_OPTIMUM):
                return None
            promise = self.law.predict(flops, level)
        else:
            promise = self.law.predict(params, tokens, level)
        if self.own:
            return promise
        reach = math.exp(NormalDist().inv_cdf(0.5 + level / 2) * TRANSFER)
        low, high = promise.loss / reach, promise.loss * reach
        if math.isfinite(promise.low):
            low, high = min(low, promise.low), max(high, promise.high)
        return replace(promise, low=low, high=high)


def resolve_law(given: str | Path | None) -> LossLaw:
    """A law file, or a law of the literature by name; Besiroglu et al. 2024 when None.

    Raises:
        RecipeError: The file's law has no optimum over size and tokens.
        TableError: There is no such published law.
        ArtifactError: The file is not a law.
    """
    if given is None:
        return _published(DEFAULT)
    path = Path(given)
    if path.suffix == ".json" or path.exists():
        return _from_file(path)
    return _published(str(given))


def _from_file(path: Path) -> LossLaw:
    from isoflop.core.artifact import read_json
    from isoflop.laws.load import SURFACES, load_law

    document = read_json(path)
    form = document.get("form") if isinstance(document, dict) else None
    known = (*SURFACES, *DIVIDING)
    if isinstance(form, str) and form not in known:
        raise RecipeError(
            f"a law of the form {form!r} does not divide a budget between size and data",
            where=str(path),
            fix=f"Give one of the forms {', '.join(known)}, or a published name",
        )
    law = load_law(path)
    losses = _published(DEFAULT) if form == "isoflop" else None
    return LossLaw(str(path), law, "params", "fitted to your runs", own=True, losses=losses)


def _published(name: str) -> LossLaw:
    from isoflop.laws.published import published_law

    law = published_law(name)
    losses = _published(DEFAULT) if law.kind == "allocation" else None
    return LossLaw(law.name, law, _count(law.counts), law.source, own=False, losses=losses)


def _count(said: str) -> Count:
    """The count nearest to a published law's own words."""
    if "without embeddings" in said or "non-embedding" in said:
        return "without_embeddings"
    return "params" if "output layer included" in said else "params_total"
