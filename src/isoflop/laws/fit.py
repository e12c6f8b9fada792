"""Fits a form to a table of runs: point estimate, standard errors, warnings, verdict.

Not for reading tables (records) nor for what a law says of other runs (predict, interval).

The point estimate is the best of several basins. For fixed exponents the form is linear in E, A and
B, so a grid over the two exponents with a 3 × 3 solve at each node (variable projection, Golub and
Pereyra 1973) finds every basin; the best few are polished together by `solver.minimise`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Literal

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.averaging import average
from isoflop.laws.beliefs import LOOSE, Effect, effect_of_beliefs
from isoflop.laws.calibration import Calibration, shipped
from isoflop.laws.forms import CHINCHILLA, GAMMA, NO_FLOOR, Array, Design, Form, get_form
from isoflop.laws.interval import Noise, measure_noise, posterior, weak_prior
from isoflop.laws.predict import AUTO, FLOPS_PER_PARAMETER_TOKEN, Law
from isoflop.laws.records import RunTable
from isoflop.laws.solver import Prior, Problem, Solution, minimise
from isoflop.laws.support import judge

Objective = Literal["huber", "lad", "lsq"]
DELTA = 1e-3  # Hoffmann et al. 2022, section 3.3
GRID = 24
EXPONENTS = np.geomspace(0.04, 1.6, GRID)
COMBINATIONS = (0.35, 0.7, 1.0, 1.4)  # starting values of g
BASINS = 6
# With fewer runs a resample drawn with replacement often lacks a whole size or horizon.
RESAMPLING_RUNS = 30


def fit(
    table: RunTable,
    form: str = "chinchilla",
    objective: Objective = "huber",
    bootstrap: int = 1000,
    seed: int = 0,
    *,
    priors: bool = True,
    calibration: Calibration | None = None,
) -> Law:
    """Fit a form to a table of runs.

    Args:
        table: The runs; see `records.read_table` and `RunTable.from_arrays`.
        form: `chinchilla` (E + A/N^alpha + B/D^beta), `gamma` (E + (A*N^-a + B*D^-b)^g),
            `kaplan-nd` (gamma without E), or `auto`, the average of all three over how much of the
            table to trust (`averaging`), which foretells larger runs best. The additive form is
            fitted without priors, the others with the weak ones of `interval.prior_moments`.
        objective: Not used by `auto`, whose likelihood is Huber's of three standard deviations. On
            residuals of the log loss: `huber` (width 1e-3, Hoffmann et al. 2022), `lad`
            (least absolute deviations) or `lsq` (least squares).
        bootstrap: Number of refits behind the standard errors and the intervals, at least 100.
        seed: Of the resampling.
        priors: Whether the literature's exponents count. Without them the beliefs stay, for a draw
            must be finite, but five times as wide. `Law.beliefs` says what they did.
        calibration: Of the intervals of `auto`; the one shipped when omitted.

    Raises:
        TableError: Unknown form or objective, fewer runs than parameters, or runs of one size or
            one horizon only: such a table does not determine the form at all. A table that merely
            supports it badly is fitted and its verdict says `unsupported`.
    """
    chosen = GAMMA if form == AUTO else get_form(form)
    if objective not in ("huber", "lad", "lsq"):
        raise TableError(
            f"there is no objective {objective!r}",
            where="objective",
            fix="Choose huber, lad or lsq",
        )
    if bootstrap < 100:
        raise TableError(
            f"{bootstrap} refits are too few for an interval",
            where="bootstrap",
            fix="Ask for at least 100; the default is 1000",
        )
    _check_size(table, chosen)
    design = Design.of(table.params, table.tokens)
    rng = np.random.default_rng(seed)
    strength = 1.0 if priors else LOOSE
    if form == AUTO:
        return _fit_auto(table, design, bootstrap, rng, priors, calibration or shipped())
    wide = GAMMA if chosen.floor else chosen
    noise = measure_noise(table, design, wide, strength)
    point = fit_point(table, chosen, objective, design, noise.run_to_run, strength=strength)
    draws = posterior(table, design, noise, bootstrap, rng, form=wide, strength=strength)
    if len(table.loss) >= RESAMPLING_RUNS:
        start = point.theta[0]
        sigma = noise.run_to_run
        own = resample(
            table, chosen, objective, design, start, sigma, bootstrap, rng, strength=strength
        )
    elif chosen is wide:
        own = draws.theta
    else:
        own = posterior(table, design, noise, bootstrap, rng, form=chosen, strength=strength).theta
    own_draws = chosen.to_printed(own, design)
    law = Law(
        form=chosen.name,
        formula=chosen.formula,
        parameters=_named(chosen, chosen.to_printed(point.theta, design)[0]),
        stderr=_named(chosen, _spread(own_draws)),
        draws=own_draws,
        noise=noise,
        allowed=np.column_stack([GAMMA.to_printed(draws.theta, design), draws.sigma]),
        objective=objective,
        n_runs=len(table),
        domain=_domain(table),
        source=table.source,
        warnings=(),
        verdict="supported",
    )
    law = judge(law, table, point.theta[0], design)
    # The additive form knows no beliefs: only its interval, that of the gamma form, rests on them.
    if not priors or not chosen.free_combination:
        return law
    return _with_effect(law, effect_of_beliefs(table, design, chosen))


def _with_effect(law: Law, found: Effect) -> Law:
    said = () if found.warning is None else (found.warning,)
    told = asdict(found) | {"shift_percent": found.shift_percent}
    return replace(law, beliefs=told, warnings=(*law.warnings, *said))


def _fit_auto(
    table: RunTable,
    design: Design,
    count: int,
    rng: np.random.Generator,
    priors: bool,
    calibration: Calibration,
) -> Law:
    found = average(table, design, count, rng, 1.0 if priors else LOOSE, calibration.drift)
    draws = found.allowed[:, : GAMMA.size]
    printed = found.form.to_printed(found.theta[None], design)[0]
    values = np.append(printed, 1.0)[: GAMMA.size]  # g = 1 where the form is additive
    law = Law(
        form=AUTO,
        formula=GAMMA.formula,
        parameters=_named(GAMMA, values),
        stderr=_named(GAMMA, _spread(draws)),
        draws=draws,
        noise=Noise(
            found.sigma,
            found.degrees,
            calibration.drift,
            found.relevance,
            found.low,
            calibration.widen,
            found.width,
        ),
        allowed=found.allowed,
        objective="likelihood",
        n_runs=len(table),
        domain=_domain(table),
        source=table.source,
        warnings=(),
        verdict="supported",
        members=tuple(asdict(m) for m in found.members),
    )
    theta = found.theta if found.form.free_combination else np.append(found.theta, 0.0)
    law = judge(law, table, theta, design)
    if not priors:
        return law
    return _with_effect(law, effect_of_beliefs(table, design, found.form, found.weighed))


def _domain(table: RunTable) -> dict[str, tuple[float, float]]:
    return {
        name: (float(column.min()), float(column.max()))
        for name, column in (
            ("params", table.params),
            ("tokens", table.tokens),
            ("flops", FLOPS_PER_PARAMETER_TOKEN * table.params * table.tokens),
        )
    }


def _named(form: Form, values: Array) -> dict[str, float]:
    return dict(zip(form.parameters, map(float, values), strict=True))


def _spread(draws: Array) -> Array:
    """Standard deviation (K,) of draws (B, K), the outermost 0.2 % of each column drawn in."""
    low, high = np.quantile(draws, [0.001, 0.999], axis=0)
    return np.asarray(np.std(np.clip(draws, low, high), axis=0, ddof=1))


def fit_point(
    table: RunTable,
    form: Form,
    objective: Objective,
    design: Design,
    sigma: float,
    basins: int = BASINS,
    strength: float = 1.0,
) -> Solution:
    """The best basin's optimum (B = 1). Objective value: see `solver`, summed over runs."""
    prior = _prior(table, form, objective, sigma, strength)
    begun = starts(table, form, design, basins)
    first = _solve(table, form, design, "huber" if objective == "lad" else objective, prior, begun)
    order = np.argsort(first.objective)
    best = first.theta[order[:1]]
    if objective == "lad":
        for delta in (2e-4, 4e-5, 8e-6, 1.6e-6, 3e-7):
            # As the quadratic part narrows the objective tends to delta times the absolute error.
            found = _solve(table, form, design, objective, prior, best, delta)
            best = found.theta
        return found
    return Solution(best, first.objective[order[:1]], first.converged[order[:1]])


def _prior(
    table: RunTable, form: Form, objective: Objective, sigma: float, strength: float
) -> Prior:
    """Weak beliefs for the gamma form, none for the additive one."""
    if form.free_combination:
        delta = np.inf if objective == "lsq" else DELTA
        return weak_prior(form, table, sigma, delta, strength)
    return Prior(np.zeros(form.size), np.zeros(form.size))


def _solve(
    table: RunTable,
    form: Form,
    design: Design,
    objective: Objective,
    prior: Prior,
    starts: Array,
    delta: float = DELTA,
) -> Solution:
    width = np.inf if objective == "lsq" else delta
    problem = Problem(form, design, np.log(table.loss), table.weight, np.array(width), prior)
    return minimise(problem, starts)


def _check_size(table: RunTable, form: Form) -> None:
    count = len(table.loss)
    sizes, horizons = len(np.unique(table.params)), len(np.unique(table.tokens))
    problems = []
    if count < CHINCHILLA.size:
        problems.append(
            f"{count} usable runs cannot determine the {CHINCHILLA.size} parameters of "
            f"{CHINCHILLA.formula}"
        )
    if sizes < 2:
        problems.append("all runs have the same size, so the effect of N is hidden")
    if horizons < 2:
        problems.append("all runs saw the same number of tokens, so the effect of D is hidden")
    if problems:
        raise TableError(
            "; ".join(problems),
            where=table.name,
            fix="Add runs until there are at least 3 sizes with 3 horizons each"
            + (f" ({len(table.rejected)} rows were left out, see above)" if table.rejected else ""),
        )


def starts(table: RunTable, form: Form, design: Design, basins: int) -> Array:
    """Coordinates (S, K) of the best local minima of the variable-projection grid."""
    inverse = 1.0 / table.loss
    root = np.sqrt(table.weight)
    size_terms = np.exp(-EXPONENTS[:, None] * design.x) * inverse * root  # (G, R)
    data_terms = np.exp(-EXPONENTS[:, None] * design.y) * inverse * root
    constant = inverse * root
    gram = np.empty((GRID, GRID, 3, 3))
    gram[..., 0, 0] = constant @ constant
    gram[..., 0, 1] = gram[..., 1, 0] = (size_terms @ constant)[:, None]
    gram[..., 0, 2] = gram[..., 2, 0] = (data_terms @ constant)[None, :]
    gram[..., 1, 1] = np.sum(size_terms**2, axis=1)[:, None]
    gram[..., 2, 2] = np.sum(data_terms**2, axis=1)[None, :]
    gram[..., 1, 2] = gram[..., 2, 1] = size_terms @ data_terms.T
    right = np.empty((GRID, GRID, 3))
    right[..., 0] = constant @ root
    right[..., 1] = (size_terms @ root)[:, None]
    right[..., 2] = (data_terms @ root)[None, :]
    gram += 1e-9 * np.trace(gram, axis1=2, axis2=3)[..., None, None] * np.eye(3)
    raw = np.linalg.solve(gram, right[..., None])[..., 0]
    coefficients = np.maximum(raw, 1e-3 * float(table.loss.min()))
    misfit = np.einsum("abi,abij,abj->ab", coefficients, gram, coefficients) - 2.0 * np.einsum(
        "abi,abi->ab", coefficients, right
    )
    chosen = _local_minima(misfit, basins)
    e, u, v = (np.log(coefficients[chosen[:, 0], chosen[:, 1], i]) for i in range(3))
    if not form.floor:
        e = np.full_like(e, np.log(NO_FLOOR * table.loss.min()))
    found = np.stack(
        [e, u, v, np.log(EXPONENTS[chosen[:, 0]]), np.log(EXPONENTS[chosen[:, 1]])], axis=1
    )
    if not form.free_combination:
        return found
    return np.concatenate(
        [np.column_stack([found, np.full(len(found), np.log(g))]) for g in COMBINATIONS]
    )


def _local_minima(misfit: Array, most: int) -> Array:
    """Grid indices (S, 2) of up to `most` local minima and near-minima, no two adjacent."""
    chosen: list[tuple[int, int]] = []
    for flat in np.argsort(misfit, axis=None):
        i, j = divmod(int(flat), misfit.shape[1])
        if all(max(abs(i - a), abs(j - b)) > 2 for a, b in chosen):
            chosen.append((i, j))
        if len(chosen) == most:
            break
    return np.array(chosen)


def resample(
    table: RunTable,
    form: Form,
    objective: Objective,
    design: Design,
    point: Array,
    sigma: float,
    count: int,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> Array:
    """Refit `count` resamples of the runs drawn with replacement, all at once; (count, K).

    A resample is the same runs with whole-number weights (Efron 1979), so nothing is copied.
    """
    runs = len(table.loss)
    repeats = rng.multinomial(runs, np.full(runs, 1.0 / runs), size=count).astype(np.float64)
    prior = _prior(table, form, objective, sigma, strength)
    start = np.broadcast_to(point, (count, form.size))
    deltas = {"huber": (DELTA,), "lad": (3e-4,), "lsq": (np.inf,)}[objective]
    for delta in deltas:
        problem = Problem(
            form, design, np.log(table.loss), repeats * table.weight, np.array(delta), prior
        )
        start = minimise(problem, start, iterations=40).theta
    return np.asarray(start)
