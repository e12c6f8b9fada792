"""Power laws of one variable: L(N), L(D) and L(C), with or without a floor; not for surfaces (fit).

Kaplan et al. 2020, eq. 1.1–1.3: (X_c/X)^alpha of the size alone (data and training unlimited), of
the data alone (large models, stopped early) or of compute (spent at its best size). With the floor,
E + (X_c/X)^alpha (Henighan et al. 2020, eq. 1.1). X_c is where the reducible loss is 1.

A table of a grid varies more than one of these; the law is then fitted to its lower envelope, and
says which runs that was and what else varied among them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import TableError
from isoflop.laws.family import Family, check_level, check_refits, ends, named, spread
from isoflop.laws.fit import DELTA, EXPONENTS, Objective
from isoflop.laws.forms import CHINCHILLA, Array, Design
from isoflop.laws.interval import (
    DRIFT,
    EXPONENT,
    FLOOR,
    FLOORLESS_DRIFT,
    NOISE_BELIEF,
    ROBUST,
    quantiles,
)
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Prediction
from isoflop.laws.records import RunTable, select
from isoflop.laws.solver import LOWER, Prior, Problem, minimise

Axis = Literal["kaplan-n", "kaplan-d", "kaplan-c"]
Floor = Literal["compare", "fit", "none"]
AXES = {"kaplan-n": "params", "kaplan-d": "tokens", "kaplan-c": "flops"}
LETTERS = {"kaplan-n": "N", "kaplan-d": "D", "kaplan-c": "C"}
SAME = 0.03
"""Values of the axis closer than this (in logs) count as one."""
VARIES = 1.5
"""Ratio of the largest to the smallest of another variable beyond which it is said to vary."""
STEEP = 0.02
"""d ln L / d ln D at the last horizon of a size beyond which more data would still have helped."""
DECISIVE = 6.0
"""Difference of Schwarz's criterion beyond which the comparison is called decisive."""
FEWEST = 4
NOTHING = (LOWER[0], LOWER[2])
"""ln E and ln v of a term that is not there."""


@dataclass(frozen=True)
class PowerLaw(Family):
    """A power law of the size, the data or the compute."""

    NEEDS = ("run_to_run", "drift")

    def predict(
        self,
        params: float | None = None,
        tokens: float | None = None,
        level: float = 0.9,
        *,
        flops: float | None = None,
    ) -> Prediction:
        """The loss at a size, a horizon or a compute, with its interval.

        `kaplan-n` needs `params`, `kaplan-d` `tokens`, `kaplan-c` `flops` or both of the others.
        What the form does not use is taken not to limit the loss.

        Raises:
            TableError: The variable of the form is missing or not positive, or `level` is not
                between 0 and 1.
        """
        check_level(level)
        if flops is None and params is not None and tokens is not None:
            flops = FLOPS_PER_PARAMETER_TOKEN * params * tokens
        name = AXES[self.form]
        value = {"params": params, "tokens": tokens, "flops": flops}[name]
        if value is None:
            raise TableError(f"a law of form {self.form} needs {name}", where=name)
        if not (np.isfinite(value) and value > 0.0):
            raise TableError(f"{name} must be positive, not {value:g}")
        low_end, high_end = self.domain[name]
        beyond = max(value / high_end, low_end / value, 1.0)
        ln_loss = _log_loss(self.draws, value)
        low, _, high = quantiles(
            ln_loss,
            np.full(len(ln_loss), self.noise["run_to_run"]),
            self.noise["drift"],
            float(np.log(beyond)),
            level,
        )
        loss = float(np.exp(_log_loss(self.values(), value))[0])
        return Prediction(loss, min(low, loss), max(high, loss), level, {name: beyond})


def _log_loss(printed: Array, value: float) -> Array:
    """ln L (B,) of printed parameters (B, 3): E, X_c, alpha."""
    e, scale, alpha = printed.T
    with np.errstate(divide="ignore"):  # a floor of 0 is a logarithm of minus infinity
        return np.asarray(np.logaddexp(np.log(e), alpha * (np.log(scale) - np.log(value))))


def fit_power(
    table: RunTable,
    form: Axis = "kaplan-c",
    objective: Objective = "huber",
    floor: Floor = "compare",
    bootstrap: int = 1000,
    seed: int = 0,
) -> PowerLaw:
    """Fit L(N), L(D) or L(C) to the lower envelope of a table.

    Args:
        table: The runs.
        form: `kaplan-n`, `kaplan-d` or `kaplan-c`.
        objective: `huber` (width 1e-3), `lad` or `lsq`, on residuals of the log loss.
        floor: `fit` E, have `none` (Kaplan et al. 2020), or `compare` both by Schwarz's
            criterion.
        bootstrap: Draws behind standard errors and intervals. They take both variants in the
            proportion of their weights when compared.
        seed: Of the draws.

    Raises:
        TableError: Unknown form, objective or floor; fewer than 4 distinct values of the variable.
    """
    check_refits(bootstrap)
    for name, value, known in (
        ("form", form, tuple(AXES)),
        ("objective", objective, ("huber", "lad", "lsq")),
        ("floor", floor, ("compare", "fit", "none")),
    ):
        if value not in known:
            raise TableError(
                f"there is no {name} {value!r}", where=name, fix=f"Choose one of {', '.join(known)}"
            )
    rows = _envelope(table, form)
    used = select(table, rows)
    axis = getattr(used, AXES[form])
    if len(used) < FEWEST:
        raise TableError(
            f"{len(used)} distinct values of {AXES[form]} on the lower envelope cannot determine a "
            f"power law with a floor ({len(table)} runs in all)",
            where=table.name,
            fix=f"Add runs until at least {FEWEST} values of {AXES[form]} have their best run",
        )
    variants = {kind: _Variant(used, axis, kind, objective) for kind in ("fit", "none")}
    weights: dict[str, float] = _weights(variants) if floor == "compare" else {floor: 1.0}
    chosen = max(variants.values(), key=lambda variant: weights.get(variant.kind, 0.0))
    rng = np.random.default_rng(seed)
    own = chosen.draws(bootstrap, rng)
    share = round(bootstrap * weights[chosen.kind])
    other = variants["none" if chosen.kind == "fit" else "fit"]
    mixed = [own[:share]] + ([other.draws(bootstrap - share, rng)] if share < bootstrap else [])
    letter = LETTERS[form]
    names = ("E", f"{letter}_c", f"alpha_{letter}")
    least = DRIFT[0] if chosen.kind == "fit" else FLOORLESS_DRIFT
    law = PowerLaw(
        form=form,
        formula=("E + " if chosen.kind == "fit" else "") + f"({letter}_c/{letter})^alpha_{letter}",
        parameters=named(names, chosen.printed(chosen.theta[None])[0]),
        stderr=named(names, spread(own)),
        draws=np.concatenate(mixed),
        noise={
            "run_to_run": chosen.sigma,
            "degrees_of_freedom": chosen.degrees,
            "drift": max(least, DRIFT[1] * chosen.sigma),
        },
        objective=objective,
        n_runs=len(used),
        domain={
            "params": ends(used.params),
            "tokens": ends(used.tokens),
            "flops": ends(used.flops if form == "kaplan-c" else 6.0 * used.params * used.tokens),
        },
        source=table.source,
        warnings=(*table.notes, *_questions(table, used, form), *_compared(weights)),
        verdict="supported",
    )
    return _judged(law, used, chosen)


def _envelope(table: RunTable, form: Axis) -> NDArray[np.intp]:
    """Rows of the best run at each value of the axis; for compute, of those nothing cheaper beats.

    Of compute the values are continuous, so a run counts if no run of less compute ends lower.
    """
    axis = np.log(getattr(table, AXES[form]))
    order = np.lexsort((table.loss, axis))
    if form == "kaplan-c":
        best = np.minimum.accumulate(table.loss[order])
        kept = order[table.loss[order] <= best]
        # Of a cluster of nearly equal compute only its lowest run is on the frontier.
        group = np.concatenate([[0], np.cumsum(np.diff(axis[kept]) > SAME)])
    else:
        kept = order
        group = np.concatenate([[0], np.cumsum(np.diff(axis[order]) > SAME)])
    lowest = [
        kept[group == g][np.argmin(table.loss[kept[group == g]])] for g in range(group[-1] + 1)
    ]
    return np.array(lowest, dtype=np.intp)


def _questions(table: RunTable, used: RunTable, form: Axis) -> list[str]:
    """What else varies along the envelope, and whether it limits the loss."""
    letter = LETTERS[form]
    found = []
    if len(used) < len(table):
        found.append(
            f"{form} was fitted to the lower envelope: the best run at each of {len(used)} values "
            f"of {AXES[form]} ({used.run_id[0]} to {used.run_id[-1]}); the other "
            f"{len(table) - len(used)} runs were left out"
        )
    if form == "kaplan-c":
        return found
    other, what = (used.tokens, "tokens") if form == "kaplan-n" else (used.params, "params")
    limited = _still_falling(table, used, form)
    if limited:
        more = "data" if form == "kaplan-n" else "parameters"
        names = ", ".join(used.run_id[i] for i in limited[:3])
        found.append(
            f"more {more} would still have lowered the loss of {len(limited)} of the {len(used)} "
            f"runs used ({names}): L({letter}) is meant for runs that {more} do not limit, so this "
            "one is too high and its exponent mixes both"
        )
    elif other.max() > VARIES * other.min():
        found.append(
            f"{what} vary from {other.min():.3g} to {other.max():.3g} among the runs used: the "
            f"exponent mixes the effects of both; a surface (gamma) tells them apart"
        )
    return found


def _still_falling(table: RunTable, used: RunTable, form: Axis) -> list[int]:
    """Rows of `used` whose neighbours say that more of the other variable would have helped."""
    own, other = (table.params, table.tokens)
    own_used, other_used = (used.params, used.tokens)
    if form == "kaplan-d":
        own, other, own_used, other_used = other, own, other_used, own_used
    found = []
    for i in range(len(used)):
        less = (np.abs(np.log(own / own_used[i])) <= SAME) & (other < 0.9 * other_used[i])
        if not less.any():
            continue
        near = int(np.flatnonzero(less)[np.argmax(other[less])])
        slope = np.log(table.loss[near] / used.loss[i]) / np.log(other_used[i] / other[near])
        if slope > STEEP:
            found.append(i)
    return found


def _weights(variants: dict[str, _Variant]) -> dict[str, float]:
    """Posterior weights of the variants by Schwarz's criterion (Schwarz 1978)."""
    criteria = {}
    for kind, variant in variants.items():
        count, free = len(variant.residual), 3 if kind == "fit" else 2
        misfit = float(np.mean(variant.clipped**2)) + 1e-12
        criteria[kind] = count * np.log(misfit) + free * np.log(count)
    least = min(criteria.values())
    raw = {kind: float(np.exp(-0.5 * (value - least))) for kind, value in criteria.items()}
    return {kind: value / sum(raw.values()) for kind, value in raw.items()}


def _compared(weights: dict[str, float]) -> list[str]:
    if len(weights) < 2:
        return []
    ratio = 2.0 * abs(np.log(max(weights["fit"], 1e-300) / max(weights["none"], 1e-300)))
    if ratio > DECISIVE:
        return []
    return [
        f"these runs do not tell whether there is a floor (weight {weights['fit']:.2f} with, "
        f"{weights['none']:.2f} without): the intervals take both"
    ]


def _judged(law: PowerLaw, used: RunTable, chosen: _Variant) -> PowerLaw:
    reasons = []
    axis = law.domain[AXES[law.form]]
    if axis[1] < 10.0 * axis[0]:
        reasons.append(f"{AXES[law.form]} spans a factor {axis[1] / axis[0]:.2g}, less than ten")
    if len(used) < 5:
        reasons.append(f"{len(used)} runs leave nothing to judge the fit by")
    if chosen.kind == "fit" and law.parameters["E"] < 0.05 * used.loss.min():
        reasons.append("the fitted floor E is almost zero: the runs do not show it")
    alpha = list(law.parameters.values())[2]
    if not 0.005 < alpha < 1.0:
        reasons.append(f"the exponent {alpha:.3f} is far from any published one")
    if not reasons:
        return law
    helps = f"The run that would help most: three times the largest {AXES[law.form]}"
    return replace(law, verdict=f"unsupported: {'; '.join(reasons)}. {helps}")


class _Variant:
    """The fit with (`fit`) or without (`none`) a floor.

    It is the additive surface whose data term is nothing: ln v at its lower limit, so that the
    solver of the surfaces serves here as well.
    """

    def __init__(self, table: RunTable, axis: Array, kind: str, objective: Objective) -> None:
        self.kind, self.objective = kind, objective
        self.ln_loss, self.weight = np.log(table.loss), table.weight
        ln_axis = np.log(axis)
        self.ln_x0 = float(ln_axis.mean())
        nowhere = np.zeros(len(axis))
        self.design = Design(ln_axis - self.ln_x0, nowhere, self.ln_x0, 0.0)
        low = float(table.loss.min())
        self.centre = np.array([np.log(low) + FLOOR[0], 0.0, NOTHING[1], EXPONENT[0], EXPONENT[0]])
        self.centre[1] = np.log(max(np.median(table.loss) - np.exp(self.centre[0]), 1e-3 * low))
        if kind == "none":
            # The whole loss falls, so its exponent is that of the reducible part, diluted.
            self.centre[0], self.centre[3] = NOTHING[0], np.log(0.08)
        self.width = np.array([FLOOR[1], 1.0, 1e-3, 0.7, 1e-3])
        if kind == "none":
            self.width[0] = 1e-3
        self.theta = self._point()
        self.residual = self._residual(self.theta)
        self.clipped = self.residual
        self.sigma, self.degrees = self._noise()

    def _pins(self, belief: float) -> Array:
        """Precision (5,) that holds what the variant lacks, and of the rest `belief` as well."""
        pinned = self.width <= 1e-3
        return np.where(pinned, 1e3, belief / self.width**2)

    def _solve(
        self, start: Array, log_loss: Array, weight: Array, delta: Array, prior: Prior
    ) -> Array:
        problem = Problem(CHINCHILLA, self.design, log_loss, weight, delta, prior)
        return minimise(problem, start).theta

    def _point(self) -> Array:
        """The best of starts over the exponent, without beliefs, (5,)."""
        starts = np.repeat(self.centre[None], 2 * len(EXPONENTS), axis=0)
        starts[:, 3] = np.tile(np.log(EXPONENTS), 2)
        middle = float(np.median(self.ln_loss))
        if self.kind == "fit":
            starts[: len(EXPONENTS), 0] = float(self.ln_loss.min()) - 0.1
        starts[:, 1] = np.log(np.maximum(np.exp(middle) - np.exp(starts[:, 0]), 1e-3))
        prior = Prior(self.centre, self._pins(0.0))
        widths = {"huber": (DELTA,), "lsq": (np.inf,), "lad": (DELTA, 2e-4, 4e-5, 8e-6, 1e-6)}
        for delta in widths[self.objective]:
            starts = self._solve(starts, self.ln_loss, self.weight, np.array(delta), prior)
        size = np.abs(self._residuals(starts))
        inside = np.minimum(size, delta)
        misfit = np.where(size <= delta, 0.5 * size**2, inside * (size - 0.5 * inside))
        return np.asarray(starts[np.argmin(misfit @ self.weight)])

    def _residuals(self, theta: Array) -> Array:
        return CHINCHILLA.log_loss(theta, self.design) - self.ln_loss

    def _residual(self, theta: Array) -> Array:
        return np.asarray(self._residuals(theta[None])[0])

    def _noise(self) -> tuple[float, float]:
        nu0, s0 = NOISE_BELIEF
        free = 3 if self.kind == "fit" else 2
        degrees = nu0 + max(len(self.residual) - free, 0)
        sigma = max(float(np.std(self.residual)), s0)
        for _ in range(5):
            self.clipped = np.clip(self.residual, -ROBUST * sigma, ROBUST * sigma)
            sigma = float(np.sqrt((nu0 * s0**2 + self.weight @ self.clipped**2) / degrees))
        return sigma, degrees

    def draws(self, count: int, rng: np.random.Generator) -> Array:
        """Printed parameters (count, 3) of refits to shaken losses under shaken weak beliefs."""
        sigma = self.sigma * np.sqrt(self.degrees / rng.chisquare(self.degrees, count))[:, None]
        shaken = self.ln_loss + sigma / np.sqrt(self.weight) * rng.standard_normal(
            (count, len(self.ln_loss))
        )
        pinned = self.width <= 1e-3
        shift = np.where(pinned, 0.0, self.width) * rng.standard_normal((count, 5))
        precision = np.where(pinned, 1e3, sigma**2 / self.width**2)
        start = np.repeat(self.theta[None], count, axis=0)
        prior = Prior(self.centre + shift, precision)
        return self.printed(self._solve(start, shaken, self.weight, ROBUST * sigma, prior))

    def printed(self, theta: Array) -> Array:
        """E, X_c and alpha (B, 3) of coordinates (B, 5)."""
        alpha = np.exp(theta[:, 3])
        floor = np.exp(theta[:, 0]) if self.kind == "fit" else np.zeros(len(theta))
        scale = np.exp(np.clip(theta[:, 1] / alpha + self.ln_x0, -700.0, 700.0))
        return np.stack([floor, scale, alpha], axis=1)
