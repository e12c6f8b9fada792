"""Compute-optimal exponents without a surface: IsoFLOP parabolas and the envelope.

Not for forecasting losses (frontier, averaging): both methods say how size and data share a budget.

Hoffmann et al. (2022) name three approaches. **Approach 1** (`envelope`): among runs of all sizes
keep those that no cheaper run beats, and regress ln N on ln C along them. **Approach 2**
(`parabolas`): cut the table into slices of equal compute, fit a parabola to the loss over ln N near
each slice's lowest run, and regress the minima's ln N on ln C. Approach 3 is `fit`.

**Known bias of approach 2.** A valley of E + A/N^a + B/D^b is no parabola: unless a = b its slopes
differ, so a parabola's minimum is shifted, by an amount that depends on where in each slice the
runs lie; where that drifts with compute, it ends up in the exponent. `Parabolas.bias` is that error
for this very table: approach 2 applied to the noiseless losses of the surface law fitted to it,
minus that law's own exponent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import TableError
from isoflop.laws.forms import GAMMA, Array, Design
from isoflop.laws.interval import prior_moments, weak_prior
from isoflop.laws.records import RunTable
from isoflop.laws.solver import Problem, minimise

FLOPS_PER_PARAMETER_TOKEN = 6.0
GAP = 0.12
"""Computes further apart than this (in logs) belong to two slices; budgets are usually doubled."""
SPAN = 0.4
"""A slice wider than this (in logs) is no slice: the table was not made at fixed budgets."""
FEWEST_SIZES = 4
FEWEST_SLICES = 3
WINDOW = 0.06
"""Runs within 6 % of a slice's lowest loss shape its parabola: further out the valley is bent."""
REFITS = 400
EXPONENT_DRIFT = 0.045
"""Standard deviation of the change of the exponent a beyond the largest budget. Slices of up to a
fifth, a tenth, a thirtieth of the compute against those beyond (Porian et al. 2024): by maximum
likelihood 0.045 on the configurations of either corpus alone (`benchmarks/laws_backtest.py`)."""


@dataclass(frozen=True)
class Minimum:
    """The lowest point of one slice."""

    flops: float
    params: float
    tokens: float
    loss: float
    stderr: float
    """Standard error of the loss at the minimum, from the parabola's residuals."""
    runs: int
    """Runs that shaped the parabola."""


@dataclass(frozen=True)
class Exponents:
    """params = coefficient · flops^a, and tokens ∝ flops^b, with b = 1 - a as C = 6ND."""

    a: float
    a_stderr: float
    b: float
    coefficient: float
    r2: float
    points: int
    pivot: float
    """Geometric mean of the budgets, where the line is known best."""
    reach: float
    """Root of the summed squares of the budgets' ln distances from it."""
    scatter: float
    """Standard deviation of ln params about the line."""
    largest: float
    """The largest budget."""

    def ends(
        self, flops: float, level: float, drift: float = EXPONENT_DRIFT
    ) -> tuple[float, float] | None:
        """Where the lowest point of a further slice lies: the regression's prediction interval
        (Student's, points - 2 degrees of freedom), wider by `drift` (normal) per e-fold of compute
        beyond the largest budget; None for two points."""
        if self.points < 3:
            return None
        from scipy.special import stdtrit  # reading a law back does not need it

        off = np.log(flops / self.pivot) / self.reach
        quantile = float(stdtrit(self.points - 2, 0.5 + level / 2.0))
        half = quantile * self.scatter * np.sqrt(1.0 + 1.0 / self.points + off**2)
        beyond = max(float(np.log(flops / self.largest)), 0.0)
        half = np.hypot(half, NormalDist().inv_cdf(0.5 + level / 2.0) * drift * beyond)
        middle = np.log(self.coefficient) + self.a * np.log(flops)
        return float(np.exp(middle - half)), float(np.exp(middle + half))


@dataclass(frozen=True)
class Parabolas:
    """Approach 2."""

    minima: tuple[Minimum, ...]
    exponents: Exponents
    bias: float
    """What approach 2 itself adds to `a` on this table's design (see the module)."""
    skipped: tuple[str, ...]
    """Slices without a minimum inside, and why."""

    def optimal(self, flops: float) -> tuple[float, float]:
        """(params, tokens) for a budget, by the regression."""
        params = float(self.exponents.coefficient * flops**self.exponents.a)
        return params, flops / (FLOPS_PER_PARAMETER_TOKEN * params)

    def to_dict(self) -> dict[str, Any]:
        """The document of the command line."""
        return asdict(self)


@dataclass(frozen=True)
class Envelope:
    """Approach 1."""

    run_id: tuple[str, ...]
    """The runs that no cheaper run beats."""
    flops: tuple[float, ...]
    params: tuple[float, ...]
    loss: tuple[float, ...]
    exponents: Exponents


def slices(table: RunTable) -> list[NDArray[np.intp]]:
    """Row indices of each group of equal compute (6·N·D), cheapest first.

    Raises:
        TableError: The table was not made at fixed budgets.
    """
    ln_c = np.log(table.params * table.tokens)
    order = np.argsort(ln_c, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(ln_c[order]) > GAP) + 1)
    kept = [
        g
        for g in groups
        if np.ptp(ln_c[g]) <= SPAN and len(np.unique(table.params[g])) >= FEWEST_SIZES
    ]
    if len(kept) < FEWEST_SLICES:
        raise TableError(
            f"the table has {len(kept)} groups of at least {FEWEST_SIZES} sizes at equal compute",
            where=table.name,
            fix=f"IsoFLOP methods need {FEWEST_SLICES} such groups; fit a surface "
            "(--form auto), or make runs at fixed budgets",
        )
    return kept


def valley(ln_n: Array, loss: Array) -> tuple[float, float, float, int] | None:
    """ln N and loss of the lowest point, the loss's standard error, and the runs used.

    None where the lowest run is at an end of the slice or the parabola opens downwards.
    """
    order = np.argsort(ln_n)
    ln_n, loss = ln_n[order], loss[order]
    lowest = int(np.argmin(loss))
    if lowest in (0, len(loss) - 1):
        return None
    near = loss <= loss[lowest] * (1.0 + WINDOW)
    near[max(lowest - 1, 0) : lowest + 2] = True
    x, y = ln_n[near] - ln_n[lowest], loss[near]
    basis = np.stack([np.ones_like(x), x, x * x], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis, y, rcond=None)
    if coefficients[2] <= 0.0:
        return None
    at = float(-coefficients[1] / (2.0 * coefficients[2]))
    if not x.min() <= at <= x.max():
        return None
    row = np.array([1.0, at, at * at])
    residual = y - basis @ coefficients
    spare = max(len(x) - 3, 1)
    variance = float(residual @ residual) / spare
    stderr = float(np.sqrt(variance * row @ np.linalg.pinv(basis.T @ basis) @ row))
    return float(ln_n[lowest] + at), float(row @ coefficients), stderr, int(near.sum())


def interpolated(ln_n: Array, loss: Array) -> tuple[float, float, float, int] | None:
    """As `valley`, by Akima's interpolation (1970) of ln loss; so Porian et al. 2024.

    It follows every run, so it has no bias of shape, no standard error, and all of their noise.
    """
    from scipy.interpolate import Akima1DInterpolator

    ln_n, first = np.unique(ln_n, return_index=True)
    loss = loss[first]
    lowest = int(np.argmin(loss))
    if lowest in (0, len(loss) - 1):
        return None
    fine = np.linspace(ln_n[lowest - 1], ln_n[lowest + 1], 4001)
    values = Akima1DInterpolator(ln_n, np.log(loss))(fine)
    at = int(np.argmin(values))
    return float(fine[at]), float(np.exp(values[at])), float("nan"), len(loss)


METHODS = {"parabola": valley, "akima": interpolated}


def minima(
    table: RunTable, method: str = "parabola"
) -> tuple[tuple[Minimum, ...], tuple[str, ...]]:
    """The lowest point of every slice that has one inside, and the slices that have none.

    Args:
        method: `parabola` (`valley`) or `akima` (`interpolated`).

    Raises:
        TableError: There is no such method, or the table was not made at fixed budgets.
    """
    if method not in METHODS:
        raise TableError(
            f"there is no method {method!r}", where="method", fix="Choose parabola or akima"
        )
    found, skipped = [], []
    for rows in slices(table):
        flops = FLOPS_PER_PARAMETER_TOKEN * float(
            np.exp(np.mean(np.log(table.params[rows] * table.tokens[rows])))
        )
        lowest = METHODS[method](np.log(table.params[rows]), table.loss[rows])
        if lowest is None:
            skipped.append(f"{flops:.3g} FLOPs: the lowest run is at the end of the slice")
            continue
        ln_n, loss, stderr, runs = lowest
        params = float(np.exp(ln_n))
        tokens = flops / (FLOPS_PER_PARAMETER_TOKEN * params)
        found.append(Minimum(flops, params, tokens, loss, stderr, runs))
    return tuple(found), tuple(skipped)


def parabolas(table: RunTable, seed: int = 0, method: str = "parabola") -> Parabolas:
    """Approach 2: exponents from the minima of IsoFLOP slices.

    Args:
        seed: Of the resampling behind the standard errors.
        method: As in `minima`.

    Raises:
        TableError: Fewer than three slices have a minimum inside.
    """
    found, skipped = minima(table, method)
    if len(found) < FEWEST_SLICES:
        raise TableError(
            f"only {len(found)} slices have their lowest loss inside the sizes tried",
            where=table.name,
            fix="Add smaller and larger sizes at the same compute",
        )
    return Parabolas(found, exponents_of(found, seed), _bias(table, method), skipped)


def exponents_of(points: Sequence[Minimum], seed: int = 0) -> Exponents:
    """How the minima's sizes grow with compute."""
    return _regress(np.array([m.flops for m in points]), np.array([m.params for m in points]), seed)


def envelope(table: RunTable, seed: int = 0) -> Envelope:
    """Approach 1: exponents along the runs that no cheaper run beats.

    Raises:
        TableError: Fewer than three such runs.
    """
    flops = FLOPS_PER_PARAMETER_TOKEN * table.params * table.tokens
    order = np.lexsort((table.loss, flops))
    best = np.minimum.accumulate(table.loss[order])
    first = np.concatenate([[True], best[1:] < best[:-1]])
    rows = order[first]
    if len(rows) < FEWEST_SLICES:
        raise TableError(f"only {len(rows)} runs lie on the envelope", where=table.name)
    return Envelope(
        tuple(table.run_id[i] for i in rows),
        tuple(flops[rows].tolist()),
        tuple(table.params[rows].tolist()),
        tuple(table.loss[rows].tolist()),
        _regress(flops[rows], table.params[rows], seed),
    )


def _regress(flops: Array, params: Array, seed: int) -> Exponents:
    """ln params on ln flops, with the standard error of resampled points (Efron 1979)."""
    x, y = np.log(flops), np.log(params)
    slope, intercept = _line(x, y, np.ones((1, len(x))))
    fitted = slope[0] * x + intercept[0]
    squares, total = float(np.sum((y - fitted) ** 2)), float(np.sum((y - y.mean()) ** 2))
    r2 = 1.0 - squares / total if total > 0.0 else 0.0
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(x), np.full(len(x), 1.0 / len(x)), size=REFITS).astype(np.float64)
    several = (drawn > 0).sum(axis=1) >= 2
    refits, _ = _line(x, y, drawn[several])
    return Exponents(
        float(slope[0]),
        float(np.std(refits, ddof=1)),
        1.0 - float(slope[0]),
        float(np.exp(intercept[0])),
        r2,
        len(x),
        float(np.exp(x.mean())),
        float(np.sqrt(np.sum((x - x.mean()) ** 2))),
        float(np.sqrt(squares / max(len(x) - 2, 1))),
        float(flops.max()),
    )


def _line(x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """Slopes and intercepts (B,) of weighted regressions, weights (B, R)."""
    total = weight.sum(axis=1)
    mean_x, mean_y = weight @ x / total, weight @ y / total
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    slope = np.sum(weight * dx * dy, axis=1) / np.maximum(np.sum(weight * dx * dx, axis=1), 1e-300)
    return slope, mean_y - slope * mean_x


def _bias(table: RunTable, method: str) -> float:
    """Approach 2 on the noiseless losses of this table's surface law, minus that law's exponent."""
    design = Design.of(table.params, table.tokens)
    centre, _ = prior_moments(GAMMA, table)
    sigma = 0.01
    problem = Problem(
        GAMMA,
        design,
        np.log(table.loss),
        table.weight,
        np.array(sigma),
        weak_prior(GAMMA, table, sigma),
    )
    theta = minimise(problem, centre[None]).theta
    smooth = np.exp(GAMMA.log_loss(theta, design)[0])
    flops, params = [], []
    for rows in slices(table):
        lowest = METHODS[method](np.log(table.params[rows]), smooth[rows])
        if lowest is not None:
            flops.append(float(np.exp(np.mean(np.log(table.params[rows] * table.tokens[rows])))))
            params.append(float(np.exp(lowest[0])))
    if len(flops) < FEWEST_SLICES:
        return float("nan")
    slope, _ = _line(np.log(np.array(flops)), np.log(np.array(params)), np.ones((1, len(flops))))
    size, data = np.exp(theta[0, 3]), np.exp(theta[0, 4])
    return float(slope[0] - data / (size + data))
