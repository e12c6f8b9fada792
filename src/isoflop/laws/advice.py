"""The next runs for a table, from a grid around it; not for the design criterion (design)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.design import next_runs
from isoflop.laws.fit import fit
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Law
from isoflop.laws.records import RunTable
from isoflop.laws.support import NextRun

GRID = 13
BEYOND = 4.0
"""Times the largest size and horizon of the table up to which runs are proposed."""
REACH = 10.0
"""Multiple of the largest run's compute at which the goal lies, where none is given."""


@dataclass(frozen=True)
class Advice:
    """Runs worth making, the most telling first."""

    goal: dict[str, float]
    """`params` and `tokens` of the run to foretell."""
    verdict: str
    """Of the law of the runs so far."""
    runs: tuple[NextRun, ...]

    def to_dict(self) -> dict[str, Any]:
        """The advice as the command line prints it."""
        return asdict(self)


def advise(
    table: RunTable,
    *,
    goal: tuple[float, float] | None = None,
    flops: float | None = None,
    count: int = 1,
    thrift: float = 0.0,
    form: str = "auto",
    seed: int = 0,
) -> Advice:
    """The runs that would sharpen the forecast of `goal` most.

    Args:
        goal: (params, tokens); ten times the largest run's compute when None.
        flops: The most that a run may cost; the largest run's compute when None.
        count: How many runs, chosen one after the other.
        thrift: Power of compute by which a gain is divided: 0 looks at the gain alone, 1 at the
            gain per FLOP.
        form: Of the law fitted to the runs so far.

    Raises:
        TableError: The table does not determine the form, no run is that cheap, or a value is not
            positive.
    """
    law = fit(table, form=form, bootstrap=300, seed=seed)
    for name, value in (("flops", flops), *zip(("params", "tokens"), goal or (), strict=False)):
        if value is not None and not (np.isfinite(value) and value > 0.0):
            raise TableError(f"{name} must be positive, not {value:g}", where=name)
    if count < 1:
        raise TableError(f"{count} runs are none", where="count", fix="Ask for 1 or more")
    aim = goal or _beyond(law)
    most = law.domain["flops"][1] if flops is None else flops
    sizes = np.geomspace(law.domain["params"][0], BEYOND * law.domain["params"][1], GRID)
    horizons = np.geomspace(law.domain["tokens"][0], BEYOND * law.domain["tokens"][1], GRID)
    n, d = (axis.ravel() for axis in np.meshgrid(sizes, horizons, indexing="ij"))
    cheap = FLOPS_PER_PARAMETER_TOKEN * n * d <= 1.001 * most
    if not cheap.any():
        least = FLOPS_PER_PARAMETER_TOKEN * sizes[0] * horizons[0]
        raise TableError(
            f"no run of the table's sizes and horizons costs {most:.2g} FLOPs or less",
            where="flops",
            fix=f"The cheapest costs {least:.2g}",
        )
    runs = next_runs(law, n[cheap], d[cheap], aim, count, thrift=thrift, seed=seed)
    return Advice({"params": aim[0], "tokens": aim[1]}, law.verdict, runs)


def _beyond(law: Law) -> tuple[float, float]:
    """The run of `REACH` times the largest compute, in the table's proportions."""
    product = REACH * law.domain["flops"][1] / FLOPS_PER_PARAMETER_TOKEN
    ratio = law.domain["params"][1] / law.domain["tokens"][1]
    return float(np.sqrt(product * ratio)), float(np.sqrt(product / ratio))
