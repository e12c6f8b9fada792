"""All that is known of how well a table determines a form; not for each measure's own formula.

The measures are those of `design`: profiles, correlations, basins, and what the beliefs did.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoflop.laws.design import (
    Basins,
    Correlations,
    PriorEffect,
    Profile,
    basins,
    correlations,
    prior_effect,
    profile,
    profiled,
)
from isoflop.laws.fit import fit
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN
from isoflop.laws.records import RunTable

REACH = 10.0
"""Multiple of the largest run's compute at which the effect of the beliefs is asked for."""


@dataclass(frozen=True)
class Identification:
    """What a table says of a form's parameters."""

    form: str
    n_runs: int
    profiles: tuple[Profile, ...]
    correlations: Correlations
    basins: Basins
    beliefs: PriorEffect
    """On the forecast of the next member."""
    params: float
    tokens: float
    """The run of ten times the largest compute, in the table's proportions."""
    verdict: str

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Parameters whose profile does not rise on both sides."""
        return tuple(p.parameter for p in self.profiles if not p.determined)

    def to_dict(self) -> dict[str, Any]:
        """The document of the command line; a limit that was not found is null."""
        document = asdict(self)
        for written, found in zip(document["profiles"], self.profiles, strict=True):
            written["low"] = found.low if found.low > 0.0 else None
            written["high"] = found.high if np.isfinite(found.high) else None
            written["determined"] = found.determined
        document["basins"].pop("objective")
        return document


def identify(
    table: RunTable, form: str = "gamma", *, bootstrap: int = 400, seed: int = 0
) -> Identification:
    """Measure how well a table determines a form.

    Args:
        form: `gamma`, `chinchilla` or `kaplan-nd`.
        bootstrap: Refits behind correlations and forecasts.
        seed: Of the resampling.

    Raises:
        TableError: There is no such form, or the table cannot be fitted with it.
    """
    names = profiled(form)
    law = fit(table, form=form, bootstrap=bootstrap, seed=seed)
    ends = law.domain
    product = REACH * ends["flops"][1] / FLOPS_PER_PARAMETER_TOKEN
    ratio = ends["params"][1] / ends["tokens"][1]
    params, tokens = float(np.sqrt(product * ratio)), float(np.sqrt(product / ratio))
    return Identification(
        form=form,
        n_runs=law.n_runs,
        profiles=tuple(profile(table, form, name) for name in names),
        correlations=correlations(law),
        basins=basins(table, form),
        beliefs=prior_effect(table, params, tokens, form, bootstrap=bootstrap, seed=seed),
        params=params,
        tokens=tokens,
        verdict=law.verdict,
    )
