"""How far the values that a law was fitted to lie from it, for forms without a loss surface.

Not for loss surfaces, whose rungs carry their residuals (law_data), nor for drawing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isoflop.laws.family import Estimate
from isoflop.laws.hyperparameters import HyperparameterLaw
from isoflop.laws.mixture import MixtureLaw
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN
from isoflop.laws.records import RunTable
from isoflop.laws.tables import FigureTable, MixtureTable
from isoflop.reporting import numbers
from isoflop.reporting.law_records import Misfit
from isoflop.reporting.records import Rung

_EXTRA = {"data-constrained": "unique_tokens", "experts": "experts", "precision": "bits"}
"""Forms whose loss depends on one more column than size and tokens."""


def mixture_misfit(law: MixtureLaw, table: MixtureTable) -> Misfit:
    """Measured losses against the law's, by validation domain."""
    fitted = law.losses(table.weights)
    groups = []
    for i, domain in enumerate(law.validation):
        points = []
        for said, measured in zip(fitted[:, i].tolist(), table.losses[:, i].tolist(), strict=True):
            off = 100.0 * (measured / said - 1.0)
            tip = f"{domain}: measured {measured:.4f}, law {said:.4f}"
            points.append((said, off, tip))
        groups.append((domain, tuple(points)))
    return Misfit("the law’s loss, nats/token", "measured − law, %", tuple(groups))


def optima_misfit(law: HyperparameterLaw, table: RunTable | FigureTable) -> Misfit | None:
    """Best rates and batches of each setting against the law's; None for a sweep."""
    settings = list(zip(_column(table, "params"), _column(table, "tokens"), strict=True))
    if len(set(settings)) < len(settings):
        return None
    groups = []
    for name, label in (("learning_rate", "learning rate"), ("batch_tokens", "batch")):
        points = []
        for (n, d), value in zip(settings, _column(table, name), strict=True):
            said = getattr(law.predict(n, d), name)
            if said is None or not np.isfinite(value):
                continue
            off = 100.0 * (value / said.best.value - 1.0)
            setting = f"{numbers.count(n)} on {numbers.count(d)} tokens"
            points.append((FLOPS_PER_PARAMETER_TOKEN * n * d, off, f"{setting}: {off:+.0f} %"))
        if points:
            groups.append((label, tuple(points)))
    return Misfit("training compute, FLOPs", "best − law, %", tuple(groups), log=True)


def added_misfit(law: Any, table: FigureTable) -> Misfit:
    """Loss that quantising added against the law's, by bits."""
    columns = (table.figures[name].tolist() for name in ("params", "tokens", "bits", "added_loss"))
    groups: dict[float, list[tuple[float, float, str]]] = {}
    for n, d, bits, measured in zip(*columns, strict=True):
        said = law.predict(n, d, bits).value
        tip = f"{numbers.count(n)} at {bits:g} bits: measured {measured:.4f}, law {said:.4f}"
        groups.setdefault(bits, []).append((said, measured - said, tip))
    return Misfit(
        "the law’s added loss, nats/token",
        "measured − law, nats/token",
        tuple((f"{bits:g} bits", tuple(points)) for bits, points in sorted(groups.items())),
    )


def judged_rungs(law: Any, table: Any) -> tuple[Rung, ...]:
    """The rows of a table with what the law says of each; none where it says nothing of runs."""
    if law.form not in _EXTRA or table is None:
        return ()
    name = _EXTRA[law.form]
    columns = [_column(table, n) for n in ("params", "tokens", "loss", name)]
    found = []
    for i, (n, d, loss, more) in enumerate(zip(*columns, strict=True), 1):
        said = law.predict(n, d, **({name: more} if np.isfinite(more) else {}))
        value = said.value if isinstance(said, Estimate) else said.loss
        cost = FLOPS_PER_PARAMETER_TOKEN * n * d
        found.append(Rung(f"row {i}", n, d, loss, cost, predicted=value))
    return tuple(found)


def _column(table: RunTable | FigureTable, name: str) -> list[float]:
    """A column by name; not a number throughout where the table lacks it."""
    if isinstance(table, RunTable):
        return list(getattr(table, name).tolist())
    found = table.figures.get(name)
    count = len(next(iter(table.figures.values())))
    return [float("nan")] * count if found is None else list(found.tolist())
