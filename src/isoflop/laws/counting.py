"""What counting parameters one way or the other does to the best size; not for fitting a law.

The exponent of N_opt ∝ C^a depends on whether embeddings belong to N and the output layer to C,
most of all for small models: this alone moved Kaplan's 0.83 to 0.70 in the replication of Porian et
al. 2024 (section 3.1), on the way to Hoffmann's 0.50 (see also Pearce and Song 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.fit import fit
from isoflop.laws.forms import Array
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN
from isoflop.laws.records import RunTable

BUDGETS = 25
FEWEST_SIZES = 4
FEWEST_BUDGETS = 5
DIFFERENT = 0.05
"""Relative difference of two counts beyond which they are told apart."""


@dataclass(frozen=True)
class CountEffect:
    """The allocation that a table gives under one way of counting."""

    count: str
    """What N and C are."""
    exponent: float
    """a of N_opt ∝ C^a."""
    coefficient: float
    """k of N_opt = k·C^a."""
    method: Literal["isoflop", "surface"]
    """From the minima of interpolated IsoFLOP curves, or from a fitted surface where the table has
    too few horizons for each size."""
    budgets: tuple[float, float]
    """Smallest and largest compute, so counted, behind it."""


def compare_counts(table: RunTable) -> tuple[CountEffect, ...]:
    """The allocation under each way of counting that the table allows.

    Without embeddings (`params`, C = 6·N·D); with them where `params_total` is given (C = 6·N·D of
    those); and N = `params` with the table's own FLOPs where they are not 6·N·D, which have the
    output layer and attention.

    Raises:
        TableError: The table has one way of counting only, or determines no allocation.
    """
    ways = [("N without embeddings, C = 6·N·D", table.params, table.params)]
    if not np.isnan(table.params_total).any() and _differ(table.params_total, table.params):
        total = table.params_total
        ways.append(("N with embeddings, C = 6·N·D", total, total))
    per_token = table.flops / table.tokens / FLOPS_PER_PARAMETER_TOKEN
    if _differ(per_token, table.params):
        ways.append(("N without embeddings, C of the table", table.params, per_token))
    if len(ways) < 2:
        raise TableError(
            "the table counts parameters in one way only",
            where=table.name,
            fix="Give params_total beside params, or the FLOPs of a run with its output layer",
        )
    return tuple(_effect(table, *way) for way in ways)


def _differ(a: Array, b: Array) -> bool:
    return bool((np.abs(a / b - 1.0) > DIFFERENT).any())


def _effect(table: RunTable, count: str, size: Array, cost: Array) -> CountEffect:
    """The allocation where N is `size` (R,) and a token costs 6·`cost` (R,) FLOPs."""
    compute, best = isoflop_minima(size, cost, table.tokens, table.loss)
    if len(compute) >= FEWEST_BUDGETS:
        exponent, intercept = np.polyfit(np.log(compute), np.log(best), 1)
        ends = (float(compute.min()), float(compute.max()))
        return CountEffect(count, float(exponent), float(np.exp(intercept)), "isoflop", ends)
    # The surface is a function of N; where C is not 6·N·D the count of C cannot be honoured.
    law = fit(replace(table, params=cost), bootstrap=100)
    low, high = law.domain["flops"]
    exponent = law.optimal(high).exponents["a"]
    coefficient = law.optimal(high).params / high**exponent
    return CountEffect(count, exponent, coefficient, "surface", (low, high))


def isoflop_minima(size: Array, cost: Array, tokens: Array, loss: Array) -> tuple[Array, Array]:
    """Compute and best size (M,) of the IsoFLOP curves whose minimum lies inside.

    Each size's loss is interpolated over its horizons (ln L over ln D); at every budget of a grid a
    parabola in ln N through the lowest point and its two neighbours on each side has its vertex at
    the best size.

    Args:
        size: N of each run, (R,).
        cost: FLOPs per token / 6 of each run, (R,).
        tokens: Horizons, (R,).
        loss: Losses, (R,).
    """
    curves = []
    for own in np.unique(size):
        rows = np.flatnonzero(size == own)
        horizons = np.unique(tokens[rows])
        if len(horizons) < 2:
            continue
        lowest = np.array([loss[rows][tokens[rows] == d].min() for d in horizons])
        compute = np.log(FLOPS_PER_PARAMETER_TOKEN * cost[rows][0] * horizons)
        curves.append((np.log(own), compute, np.log(lowest)))
    if len(curves) < FEWEST_SIZES:
        return np.array([]), np.array([])
    found = []
    start, end = min(c[1][0] for c in curves), max(c[1][-1] for c in curves)
    for budget in np.linspace(start, end, BUDGETS):
        reached = [c for c in curves if c[1][0] <= budget <= c[1][-1]]
        if len(reached) < FEWEST_SIZES:
            continue
        ln_size = np.array([c[0] for c in reached])
        ln_loss = np.array([np.interp(budget, c[1], c[2]) for c in reached])
        bottom = int(np.argmin(ln_loss))
        if not 0 < bottom < len(reached) - 1:
            continue
        near = slice(max(bottom - 2, 0), bottom + 3)
        bend, slope, _ = np.polyfit(ln_size[near] - ln_size[bottom], ln_loss[near], 2)
        vertex = ln_size[bottom] - slope / (2.0 * bend) if bend > 0.0 else np.nan
        if ln_size[near][0] < vertex < ln_size[near][-1]:
            found.append((budget, vertex))
    if not found:
        return np.array([]), np.array([])
    compute, best = np.exp(np.array(found)).T
    return np.asarray(compute), np.asarray(best)
