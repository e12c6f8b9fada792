"""Fits the data-constrained law, the worth of repeated epochs; not for fresh data alone (fit).

The form, its source and its predictions are in `repetition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.family import (
    check_refits,
    ends,
    named,
    spread,
)
from isoflop.laws.fit import DELTA
from isoflop.laws.forms import Array
from isoflop.laws.interval import COMBINATION, DRIFT, EXPONENT, FLOOR
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Law
from isoflop.laws.quality import REPEATED
from isoflop.laws.records import RunTable, select
from isoflop.laws.repetition import FORM, FORMULA, PARAMETERS, DataLaw, log_loss

REPETITION = (np.log(15.4), 0.7)
EXCESS = (np.log(5.3), 0.7)
"""Weak beliefs about ln R_D* and ln R_N*: Muennighoff et al. 2023, within a factor 2."""
EARLY = 2.0
"""Times the table's lowest loss above which a run shows its first steps, where no form holds."""
RISING = 0.01
STARTS = (1.0, 4.0, 12.0, 20.0, 100.0)
AS_GOOD = 1.01
"""Times the best objective below which another optimum fits as well."""
ITERATIONS = 60
GROUP = 10
"""Refits that share one draw of the beliefs and of the surface beneath."""
Objective = Literal["huber", "lsq"]


def fit_data_constrained(
    table: RunTable,
    base: Law | Mapping[str, float] | None = None,
    objective: Objective = "huber",
    bootstrap: int = 200,
    seed: int = 0,
) -> DataLaw:
    """Fit R_D* and R_N*, and unless `base` holds it, the surface beneath.

    Args:
        table: Runs with `unique_tokens`; where it is absent, no token was repeated.
        base: A law of fresh data (E, A, B, alpha or a, beta or b, and g), held fixed: the
            procedure of Muennighoff et al. 2023, appendix A. Without it all is fitted together,
            with the weak priors of the gamma form, and runs that end above twice the lowest loss
            are left out.
        objective: `huber` (width 1e-3) or `lsq`, on residuals of the log loss.
        bootstrap: Refits behind standard errors and intervals.
        seed: Of the resampling.

    Raises:
        TableError: No run repeats its data, or there are fewer runs than parameters.
    """
    check_refits(bootstrap)
    if objective not in ("huber", "lsq"):
        raise TableError(
            f"there is no objective {objective!r} for this form", fix="Choose huber or lsq"
        )
    short = np.zeros(len(table), dtype=bool)
    if base is None:
        short = table.loss > EARLY * table.loss.min()
    kept = select(table, ~short)
    unique = np.where(np.isnan(kept.unique_tokens), kept.tokens, kept.unique_tokens)
    unique = np.minimum(unique, kept.tokens)
    free = 2 if base is not None else len(PARAMETERS)
    if len(kept) < free:
        raise TableError(
            f"{len(kept)} usable runs cannot determine {free} parameters", where=table.name
        )
    if not (kept.tokens > REPEATED * unique).any():
        raise TableError(
            "no run repeats its data, so what a repetition is worth is hidden",
            where=table.name,
            fix="Give the column unique_tokens, or fit a form of fresh data (chinchilla, gamma)",
        )
    problem = _Problem(kept, unique, None if base is None else _surface(base), objective)
    optima, sigma = problem.solve()
    rng = np.random.default_rng(seed)
    draws = problem.refits(optima, sigma, bootstrap, rng, base if isinstance(base, Law) else None)
    printed = problem.printed(optima)
    law = DataLaw(
        form=FORM,
        formula=FORMULA,
        parameters=named(PARAMETERS, printed[0]),
        stderr=named(PARAMETERS, spread(draws)),
        draws=draws,
        noise={"run_to_run": sigma, "drift": max(DRIFT[0], DRIFT[1] * sigma)},
        objective=objective,
        n_runs=len(kept),
        domain={
            "params": ends(kept.params),
            "tokens": ends(kept.tokens),
            "flops": ends(FLOPS_PER_PARAMETER_TOKEN * kept.params * kept.tokens),
            "epochs": ends(kept.tokens / unique),
        },
        source=table.source,
        warnings=(*_warnings(table, kept, unique, short), *_others(printed)),
        verdict="supported",
    )
    return _judged(law, kept, unique)


def _judged(law: DataLaw, table: RunTable, unique: Array) -> DataLaw:
    reasons = []
    repeated = table.tokens / unique
    if len(np.unique(np.round(np.log(repeated[repeated > REPEATED]), 2))) < 2:
        reasons.append("one number of epochs cannot show how the worth of repetition falls")
    for name in ("R_D*", "R_N*"):
        low, high = np.quantile(law.draws[:, PARAMETERS.index(name)], [0.05, 0.95])
        if high > 100.0 * low:
            reasons.append(f"{name} is not determined: anything from {low:.2g} to {high:.2g} fits")
    below = table.loss < law.parameters["E"]
    if below.mean() > 0.1:
        reasons.append("more than a tenth of the runs lie below the floor E")
    if not reasons:
        return law
    helps = "The run that would help most: the largest size at twice the most epochs of the table"
    return replace(law, verdict=f"unsupported: {'; '.join(reasons)}. {helps}")


def _warnings(table: RunTable, kept: RunTable, unique: Array, short: Array) -> list[str]:
    warnings = [note for note in table.notes if "fit the form data-constrained" not in note]
    if short.any():
        names = ", ".join(table.run_id[i] for i in np.flatnonzero(short)[:3])
        warnings.append(
            f"{int(short.sum())} runs ({names}{', ...' if short.sum() > 3 else ''}) end above "
            f"{EARLY:g} times the lowest loss and were left out: these are the first steps of "
            "training, where the form does not hold"
        )
    rising = _rising(kept, unique)
    if rising:
        names = ", ".join(kept.run_id[i] for i in rising[:3])
        warnings.append(
            f"{len(rising)} runs ({names}{', ...' if len(rising) > 3 else ''}) end above a run of "
            "the same size and corpus with fewer epochs: overfitted, which this form cannot show "
            "(Muennighoff et al. left such runs out)"
        )
    return warnings


def _others(printed: Array) -> list[str]:
    """What to say of further optima (S, 8) behind the first."""
    return [
        f"R_D* = {other[6]:.3g} with R_N* = {other[7]:.3g} fits these runs as well as "
        f"{printed[0, 6]:.3g} with {printed[0, 7]:.3g}"
        for other in printed[1:]
    ]


def _rising(table: RunTable, unique: Array) -> list[int]:
    """Runs whose loss is higher than with fewer epochs of the same corpus."""
    found = []
    for i in range(len(table)):
        shorter = (table.params == table.params[i]) & (table.tokens < table.tokens[i])
        shorter &= np.abs(np.log(unique / unique[i])) < 0.01
        if shorter.any() and table.loss[i] > (1.0 + RISING) * table.loss[shorter].min():
            found.append(i)
    return found


def _surface(base: Law | Mapping[str, float]) -> Array:
    """E, A, B, a, b, g (6,) of a law of fresh data."""
    values = list((base.parameters if isinstance(base, Law) else base).values())
    if len(values) not in (5, 6):
        raise TableError(
            f"the base law has {len(values)} parameters, not E, A, B, alpha, beta (and g)",
            fix="Give a law of form chinchilla or gamma",
        )
    return np.array([*values, 1.0][:6])


class _Problem:
    """The coordinates in which the form is fitted, and its objective.

    theta = (ln E, ln u, ln v, ln p, ln q, ln g, ln R_D*, ln R_N*), or the last two alone where the
    surface is given; u, v, p, q as in `forms`, centred on the table. `K` coordinates, `R` runs.
    """

    def __init__(
        self, table: RunTable, unique: Array, surface: Array | None, objective: Objective
    ) -> None:
        self.table, self.unique, self.surface = table, unique, surface
        self.delta = np.inf if objective == "lsq" else DELTA
        self.ln_n0 = float(np.log(table.params).mean())
        self.ln_d0 = float(np.log(table.tokens).mean())
        centre, width = [], []
        if surface is None:
            low, middle = np.quantile(table.loss, [0.1, 0.5])
            floor = np.log(low) + FLOOR[0]
            half = np.log((middle - np.exp(floor)) / 2.0)
            centre = [floor, half, half, EXPONENT[0], EXPONENT[0], COMBINATION[0]]
            width = [FLOOR[1], 1.0, 1.0, EXPONENT[1], EXPONENT[1], COMBINATION[1]]
        self.centre = np.array([*centre, REPETITION[0], EXCESS[0]])
        self.width = np.array([*width, REPETITION[1], EXCESS[1]])

    def printed(self, theta: Array, surface: Array | None = None) -> Array:
        """Printed parameters (B, 8) of coordinates (B, K), on another surface (6,) if given."""
        if self.surface is not None:
            fixed = np.broadcast_to(self.surface if surface is None else surface, (len(theta), 6))
            return np.concatenate([fixed, np.exp(theta)], axis=1)
        e, u, v, p, q, ln_g, r_d, r_n = theta.T
        g = np.exp(ln_g)
        a, b = np.exp(p) / g, np.exp(q) / g
        big_a = np.exp(np.clip(u / g + a * self.ln_n0, -700.0, 700.0))
        big_b = np.exp(np.clip(v / g + b * self.ln_d0, -700.0, 700.0))
        return np.stack([np.exp(e), big_a, big_b, a, b, g, np.exp(r_d), np.exp(r_n)], axis=1)

    def residual(self, theta: Array, surface: Array | None = None) -> Array:
        """ln L - ln loss of coordinates (B, K) at the table's runs, (B, R)."""
        printed = self.printed(np.clip(theta, self.centre - 7.0, self.centre + 7.0), surface)
        table = self.table
        return log_loss(printed, table.params, table.tokens, self.unique) - np.log(table.loss)

    def _terms(self, theta: Array, root: Array, surface: Array | None) -> tuple[Array, Array]:
        """Huber's loss as squares of terms (B, R), with their derivatives (B, R, K)."""
        step = 1e-5
        r = self.residual(theta, surface)
        slope = np.empty((*r.shape, theta.shape[1]))
        for k in range(theta.shape[1]):
            moved = theta.copy()
            moved[:, k] += step
            slope[:, :, k] = (self.residual(moved, surface) - r) / step
        size = np.abs(r)
        if np.isfinite(self.delta):
            outside = np.sqrt(np.maximum(2.0 * self.delta * size - self.delta**2, self.delta**2))
            far = size > self.delta
            slope *= np.where(far, self.delta / outside, 1.0)[:, :, None]
            r = np.where(far, np.sign(r) * outside, r)
        return root * r, root[:, :, None] * slope

    def _minimise(
        self,
        start: Array,
        sigma: float,
        repeats: Array,
        centre: Array,
        surface: Array | None = None,
        belief: float = 1.0,
    ) -> tuple[Array, Array]:
        """Coordinates (B, K) and objective (B,) from starts (B, K): Levenberg–Marquardt steps."""
        precision = belief * sigma * min(sigma, self.delta) / self.width**2

        theta, root = np.array(start), np.sqrt(repeats)
        terms, slope = self._terms(theta, root, surface)
        off = theta - centre
        best = np.sum(terms**2, axis=1) + np.sum(precision * off**2, axis=1)
        damping = np.full(len(theta), 1e-3)
        for _ in range(ITERATIONS):
            normal = np.einsum("brk,brl->bkl", slope, slope) + np.diag(precision)
            gradient = np.einsum("brk,br->bk", slope, terms) + precision * (theta - centre)
            scale = np.einsum("bkk->bk", normal)
            floor = 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300
            system = normal + (damping[:, None] * scale + floor)[:, :, None] * np.eye(len(centre))
            move = -np.linalg.solve(system, gradient[:, :, None])[:, :, 0]
            trial = theta + np.clip(move, -2.0, 2.0)
            new_terms, new_slope = self._terms(trial, root, surface)
            off = trial - centre
            value = np.sum(new_terms**2, axis=1) + np.sum(precision * off**2, axis=1)
            better = value < best
            gain = np.where(better, best - value, 0.0)
            done = (gain <= 1e-13 * best) & (~better | (np.abs(move).max(axis=1) < 1e-6))
            done &= better | (damping > 1e6)
            best = np.where(better, value, best)
            theta[better], terms[better] = trial[better], new_terms[better]
            slope[better] = new_slope[better]
            damping = np.where(better, damping * 0.2, np.maximum(damping * 5.0, 1e-6))
            if done.all():
                break
        return theta, best

    def solve(self) -> tuple[Array, float]:
        """Optima (S, K), the reported one first, and the run-to-run noise of ln loss.

        On a given surface no belief enters the objective; among optima that fit equally well the
        one nearest to the beliefs is reported and the rest become warnings.
        """
        pairs = [(d, n) for d in STARTS for n in STARTS]
        starts = np.tile(self.centre, (len(pairs), 1))
        starts[:, -2:] = np.log(pairs)
        weights = np.broadcast_to(self.table.weight, (len(pairs), len(self.table)))
        sigma, belief = 0.01, float(self.surface is None)
        for _ in range(4):
            theta, value = self._minimise(starts, sigma, weights, self.centre, belief=belief)
            residual = self.residual(theta[np.argmin(value)][None])[0]
            clipped = np.clip(residual, -3.0 * sigma, 3.0 * sigma)
            free = max(len(residual) - theta.shape[1], 1)
            new = max(float(np.sqrt(np.sum(self.table.weight * clipped**2) / free)), 1e-3)
            settled = self.surface is not None or abs(new - sigma) < 0.02 * sigma
            starts, sigma = theta, new
            if settled:
                break
        good = theta[value <= AS_GOOD * value.min()]
        off = np.sum(((good - self.centre) / self.width) ** 2, axis=1)
        optima: list[Array] = []
        for candidate in good[np.argsort(off)]:
            if all(np.abs(candidate[-2:] - seen[-2:]).max() > 0.1 for seen in optima):
                optima.append(candidate)
        return np.array(optima), sigma

    def refits(
        self, optima: Array, sigma: float, count: int, rng: np.random.Generator, base: Law | None
    ) -> Array:
        """Printed parameters (count, 8): resampled rows under shaken beliefs, from every optimum
        in turn, so that the draws show all of them."""
        runs = len(self.table)
        found = []
        for first in range(0, count, GROUP):
            size = min(GROUP, count - first)
            repeats = rng.multinomial(runs, np.full(runs, 1.0 / runs), size=size)
            centre = self.centre + self.width * rng.standard_normal(len(self.centre))
            surface = None
            if base is not None:
                surface = np.array([*base.draws[rng.integers(len(base.draws))], 1.0][:6])
            start = optima[np.arange(first, first + size) % len(optima)]
            theta, _ = self._minimise(
                start, sigma, repeats * self.table.weight, centre, surface=surface
            )
            found.append(self.printed(theta, surface))
        return np.concatenate(found)
