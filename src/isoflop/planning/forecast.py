"""The law behind a plan: a `law.json` of one's own or a law of the literature, by name.

Not for fitting (`laws.fit`). It divides a budget between size and data, and foretells the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from isoflop.core.errors import RecipeError
from isoflop.planning.shape import Count

if TYPE_CHECKING:
    from isoflop.laws.predict import Law, Prediction
    from isoflop.laws.published import PublishedLaw

DEFAULT = "besiroglu"
FLOPS_PER_PARAMETER_TOKEN = 6.0
TRANSFER = 0.05
"""Standard deviation of ln loss, at least, when another's law foretells one's own run: additive
fits miss by 4.2 % in the median at ten times their runs' compute, on public tables."""


@dataclass(frozen=True)
class LossLaw:
    """A law over size and tokens, and what its N counts."""

    name: str
    law: Law | PublishedLaw
    count: Count
    source: str
    own: bool
    """Fitted by the user, on their data and tokenizer."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before using it."""
        return self.law.warnings

    @property
    def verdict(self) -> str:
        """`supported`, or `unsupported: ` and why."""
        return self.law.verdict

    def optimal(self, flops: float) -> tuple[float, float]:
        """Parameters (as `count` says) and tokens for 6·params·tokens = `flops`.

        Raises:
            TableError: The law says nothing of allocation.
        """
        best = self.law.optimal(flops)
        return best.params, best.tokens

    def loss(self, params: float, tokens: float, level: float) -> Prediction | None:
        """The loss promised for a run, or None where the law has no formula for it.

        The interval of another's law is at least `TRANSFER` wide.
        """
        if getattr(self.law, "kind", "surface") == "allocation":
            return None
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
    from isoflop.laws.load import SURFACES
    from isoflop.laws.predict import load_law

    document = read_json(path)
    form = document.get("form") if isinstance(document, dict) else None
    if isinstance(form, str) and form not in SURFACES:
        raise RecipeError(
            f"a law of the form {form!r} does not divide a budget between size and data",
            where=str(path),
            fix=f"Give one of the forms {', '.join(SURFACES)}, or a published name",
        )
    return LossLaw(str(path), load_law(path), "params", "fitted to your runs", own=True)


def _published(name: str) -> LossLaw:
    from isoflop.laws.published import published_law

    law = published_law(name)
    return LossLaw(law.name, law, _count(law.counts), law.source, own=False)


def _count(said: str) -> Count:
    """The count nearest to a published law's own words."""
    if "without embeddings" in said or "non-embedding" in said:
        return "without_embeddings"
    return "params" if "output layer included" in said else "params_total"
