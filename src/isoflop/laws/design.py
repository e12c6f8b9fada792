"""What a table determines, and which runs would determine more; not for fitting or for verdicts.

**Identifiability.** `profile` gives the likelihood along one parameter with the others refitted (a
flat one is not determined), `correlations` which parameters stand for one another, `basins` how
many starts of the fit end in its optimum.

**Next runs.** `next_runs` picks runs one by one. In each of W worlds (laws drawn from what is
known) the coordinates are normal about that law with the covariance C of what is known, and with j
the gradient of ln loss, observing candidate m with noise s_m takes

    (j_goal' C j_m)² / (s_m² + j_m' C j_m)

from the goal's variance j_goal' C j_goal and updates C. The run that lowers the mean over worlds
of the log variance most is picked: the greedy pseudo-Bayesian c-optimal design (Chaloner and
Verdinelli 1995, section 4), divided by compute to the power `thrift`. Runs far above the lowest
losses are noisier in the sense of `averaging`, so they are worth less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import TableError
from isoflop.laws.fit import DELTA, Objective, fit, starts
from isoflop.laws.forms import GAMMA, Array, Design, Form, get_form
from isoflop.laws.interval import (
    COMBINATION,
    EXPONENT,
    FLOOR,
    ROBUST,
    SCALE,
    measure_noise,
    weak_prior,
)
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Law, Prediction
from isoflop.laws.records import RunTable
from isoflop.laws.solver import Prior, Problem, minimise
from isoflop.laws.support import FEWEST, NextRun, levels

SAME_OPTIMUM = 1e-6
"""Relative difference of the objective below which two starts found the same optimum."""
PINNED = 1e8
ROOT_LIMIT = float(np.sqrt(3.84))
"""Root of the drop that bounds 95 % (chi-square with one degree of freedom)."""
FARTHEST = float(np.log(8.0))
"""Farthest ln of a parameter from its best that is tried."""
FINE = 4
"""Values between the best and a limit from which the limit is fine enough."""
MOST_ZOOMS = 6
POLISH = 10
RELEVANCES = (0.0, 8.0, 16.0)
"""Of the worlds in turn (`averaging`): before the runs are made one cannot know how far up the law
holds. A design at the low end alone would not tell the exponents; one spread over everything would
trust runs of another regime."""
NOISE = 0.02
"""How far off ln loss a run is where no law says it: noise and what the form misses (decisions)."""
WORLDS = 512  # with 32 the design hangs on the seed


@dataclass(frozen=True)
class Profile:
    """Twice the drop of the log likelihood along one parameter, the others refitted."""

    parameter: str
    values: tuple[float, ...]
    drop: tuple[float, ...]
    """0 at the best value; 95 % of the likelihood lies where it is below 3.84."""
    best: float
    low: float
    high: float
    """Where the drop crosses 3.84; infinite or 0 where it does not within a factor 8."""

    @property
    def determined(self) -> bool:
        """Whether the profile rises on both sides."""
        return bool(np.isfinite(self.high)) and self.low > 0.0


@dataclass(frozen=True)
class Correlations:
    """Correlation of the logs of the parameters over a law's draws."""

    parameters: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Basins:
    """Where the starts of a point fit end."""

    starts: int
    agreeing: int
    """Starts that end in the best optimum, up to 1e-6 of the objective."""
    objective: tuple[float, ...]
    """Of every start, the best first."""


def profile(table: RunTable, form: str, parameter: str, points: int = 25) -> Profile:
    """Likelihood of the weak-prior fit along one of the coordinates u, v, E and the exponents.

    Args:
        form: As in `fit`, except `auto`.
        parameter: `E`, the exponent of N or of D on its own axis (`p`, `q`), or `g`.
        points: Values tried, odd: half of them on either side of the best, as far as the 95 %
            limit and some way beyond, but no further than a factor 8.

    Raises:
        TableError: The form has no such parameter.
    """
    chosen = get_form(form)
    names = profiled(form)
    if parameter not in names:
        raise TableError(
            f"the form {form} has no profile of {parameter!r}",
            where="parameter",
            fix=f"Choose one of {', '.join(names)}",
        )
    line = _Line(table, chosen, names[parameter])
    half = points // 2 + 1
    reach = [FARTHEST, FARTHEST]
    for _ in range(MOST_ZOOMS):
        span = np.append(np.linspace(-reach[0], 0.0, half), np.linspace(0.0, reach[1], half)[1:])
        drop = line.drop(span)
        root = np.sqrt(drop)
        sides = (
            (-span[half - 1 :: -1], root[half - 1 :: -1]),
            (span[half - 1 :], root[half - 1 :]),
        )
        # Each side shrinks to the first value beyond its limit while that is among the first few.
        wide = [_first_beyond(root) < FINE for _, root in sides]
        if not any(wide):
            break
        reach = [
            float(distance[_first_beyond(root)]) if coarse else far
            for (distance, root), coarse, far in zip(sides, wide, reach, strict=True)
        ]
    low, high = (_crossing(*side) for side in sides)
    best = float(np.exp(line.best[line.column]))
    return Profile(
        *(parameter, tuple((best * np.exp(span)).tolist()), tuple(drop.tolist()), best),
        *(float(best * np.exp(-low)), float(best * np.exp(high))),
    )


def profiled(form: str) -> dict[str, int]:
    """What a form has profiles of, and in which coordinate each lies.

    Raises:
        TableError: There is no such form.
    """
    chosen = get_form(form)
    names = {"E": 0, "p": 3, "q": 4} | ({"g": 5} if chosen.free_combination else {})
    if not chosen.floor:
        del names["E"]
    return names


class _Line:
    """The weak-prior fit with one coordinate held."""

    def __init__(self, table: RunTable, form: Form, column: int) -> None:
        self.form, self.column = form, column
        self.design = Design.of(table.params, table.tokens)
        self.sigma = measure_noise(table, self.design, form).run_to_run
        self.prior = weak_prior(form, table, self.sigma)
        self.log_loss, self.weight = np.log(table.loss), table.weight
        self.path: tuple[Array, Array] | None = None
        begin = np.vstack([self.prior.centre, starts(table, form, self.design, 8)])
        self._settle(begin)

    def _solve(self, beliefs: Prior, start: Array, iterations: int = 40) -> tuple[Array, Array]:
        delta = np.array(ROBUST * self.sigma)
        problem = Problem(self.form, self.design, self.log_loss, self.weight, delta, beliefs)
        found = minimise(problem, start, iterations=iterations)
        return found.theta, found.objective

    def _settle(self, start: Array) -> None:
        theta, objective = self._solve(self.prior, start)
        lowest = int(np.argmin(objective))
        self.best, self.objective = theta[lowest], float(objective[lowest])

    def drop(self, span: Array) -> Array:
        """Twice the fall of the log likelihood at `span` (P,) from the best of the coordinate."""
        fixed = self.best[self.column] + span
        shape = (len(span), 1)
        centre, precision = np.tile(self.prior.centre, shape), np.tile(self.prior.precision, shape)
        centre[:, self.column], precision[:, self.column] = fixed, PINNED
        beliefs = Prior(centre, precision)
        theta, objective = self._solve(beliefs, self._held(self._guess(span), fixed))
        # A point may stop in another basin than its neighbours: begin again where they ended.
        for shift in (1, -1):
            again, other = self._solve(
                beliefs, self._held(np.roll(theta, shift, axis=0), fixed), POLISH
            )
            lower = other < objective
            theta[lower], objective[lower] = again[lower], other[lower]
        self.path = span, theta
        # The belief about the coordinate itself is part of the likelihood that is profiled.
        own = self.prior.precision[self.column]
        objective = objective + 0.5 * own * (fixed - self.prior.centre[self.column]) ** 2
        return np.asarray(np.maximum(2.0 * (objective - self.objective) / self.sigma**2, 0.0))

    def _guess(self, span: Array) -> Array:
        """Where the last scan, or the best, says that the others lie; (P, K)."""
        if self.path is None:
            return np.tile(self.best, (len(span), 1))
        known, theta = self.path
        return np.stack([np.interp(span, known, column) for column in theta.T], axis=1)

    def _held(self, theta: Array, fixed: Array) -> Array:
        start = theta.copy()
        start[:, self.column] = fixed
        return start


def _first_beyond(root: Array) -> int:
    """The first value whose drop exceeds its limit; past the last where none does."""
    beyond = np.flatnonzero(root > ROOT_LIMIT)
    return int(beyond[0]) if len(beyond) else len(root)


def _crossing(distance: Array, root: Array) -> float:
    """Distance at which the root of the drop exceeds its limit; infinite where it does not.

    The root is nearly straight where the likelihood is nearly normal.
    """
    i = _first_beyond(root)
    if i == len(root):
        return np.inf
    part = (ROOT_LIMIT - root[i - 1]) / (root[i] - root[i - 1])
    return float(distance[i - 1] + part * (distance[i] - distance[i - 1]))


def correlations(law: Law) -> Correlations:
    """Correlations of the logs of the law's parameters over its draws."""
    names = tuple(law.parameters)
    logs = np.log(np.maximum(law.draws, 1e-300))
    varied = np.ptp(logs, axis=0) > 0.0
    matrix = np.eye(len(names))
    if varied.sum() > 1:
        matrix[np.ix_(varied, varied)] = np.corrcoef(logs[:, varied].T)
    return Correlations(names, tuple(tuple(map(float, row)) for row in matrix))


def basins(table: RunTable, form: str = "chinchilla", objective: Objective = "huber") -> Basins:
    """Polish many starts and count how many end in the best optimum.

    Args:
        objective: `huber` or `lsq`; the optimum of `lad` is approached through `huber`'s.
    """
    chosen = get_form(form)
    design = Design.of(table.params, table.tokens)
    width = np.inf if objective == "lsq" else DELTA
    none = Prior(np.zeros(chosen.size), np.zeros(chosen.size))
    if chosen.free_combination:
        none = weak_prior(
            chosen, table, measure_noise(table, design, chosen).run_to_run, float(width)
        )
    problem = Problem(chosen, design, np.log(table.loss), table.weight, np.array(width), none)
    found = minimise(problem, starts(table, chosen, design, 16), iterations=200)
    ordered = np.sort(found.objective)
    agreeing = int(np.sum(ordered <= ordered[0] * (1.0 + SAME_OPTIMUM)))
    return Basins(len(ordered), agreeing, tuple(ordered.tolist()))


@dataclass(frozen=True)
class PriorEffect:
    """What the literature's beliefs did to one forecast."""

    believing: Prediction
    free: Prediction
    """With the beliefs five times as wide."""
    percent: float
    """By how much the belief changes the loss."""


def prior_effect(
    table: RunTable,
    params: float,
    tokens: float,
    form: str = "auto",
    *,
    bootstrap: int = 400,
    seed: int = 0,
) -> PriorEffect:
    """A forecast with and without the weak priors.

    Raises:
        TableError: As `fit` and `Law.predict`.
    """
    one, two = (
        fit(table, form, bootstrap=bootstrap, seed=seed, priors=p).predict(params, tokens)
        for p in (True, False)
    )
    return PriorEffect(one, two, 100.0 * (one.loss / two.loss - 1.0))


def next_runs(
    law: Law | None,
    params: Sequence[float] | Array,
    tokens: Sequence[float] | Array,
    goal: tuple[float, float],
    count: int = 12,
    *,
    thrift: float = 0.0,
    seed: int = 0,
) -> tuple[NextRun, ...]:
    """Runs worth making next, the most telling first.

    Args:
        law: What is known. None before the first run: then the literature's beliefs speak.
        params: Sizes of the candidate runs, (M,).
        tokens: Their horizons, (M,).
        goal: (params, tokens) of the run to foretell.
        count: How many runs; at least 3 sizes and 3 horizons are among them if the candidates
            have them.
        thrift: Power of compute by which a gain is divided: 0 looks at the gain alone, 1 at the
            gain per FLOP.
        seed: Of the beliefs' draws.

    Raises:
        TableError: No candidates, or their columns differ in length.
    """
    n, d = np.asarray(params, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if len(n) != len(d) or not len(n):
        raise TableError(
            f"{len(n)} sizes and {len(d)} horizons do not name candidate runs", where="candidates"
        )
    theta, covariance, design = _known(law, n, d, seed)
    places = design.at(np.append(n, goal[0]), np.append(d, goal[1]))
    seen = GAMMA.evaluate(theta, places)
    gradient = seen.jacobian.swapaxes(1, 2)  # (W, M + 1, K)
    above = np.maximum(seen.log_loss[:, :-1] - seen.log_loss[:, :-1].min(axis=1, keepdims=True), 0)
    relevance = np.resize(RELEVANCES, len(theta))[:, None]
    noise = (law.noise.run_to_run if law else NOISE) ** 2 * np.exp(relevance * above)
    candidates, aim = gradient[:, :-1], gradient[:, -1]
    left = np.repeat(covariance[None], len(theta), axis=0)  # (W, K, K)
    whole = np.einsum("wk,wkl,wl->w", aim, left, aim)
    cost = FLOPS_PER_PARAMETER_TOKEN * n * d
    chosen: list[NextRun] = []
    picked: list[int] = []
    for _ in range(min(count, len(n))):
        shared = candidates @ left  # covariances of candidates with coordinates, (W, M, K)
        own = np.einsum("wmk,wmk->wm", shared, candidates) + noise
        removed = np.einsum("wmk,wk->wm", shared, aim) ** 2 / own
        unknown = np.einsum("wk,wkl,wl->w", aim, left, aim)[:, None]
        worth = -np.mean(np.log(np.maximum(1.0 - removed / unknown, 1e-12)), axis=0) / cost**thrift
        worth[_barred(n, d, picked, count)] = -np.inf
        best = int(np.argmax(worth))
        gain = float(np.mean(removed[:, best] / whole))
        gained = shared[:, best] / np.sqrt(own[:, best, None])
        left = left - gained[:, :, None] * gained[:, None, :]
        picked.append(best)
        chosen.append(NextRun(float(n[best]), float(d[best]), float(cost[best]), gain))
    return tuple(chosen)


def _barred(n: Array, d: Array, picked: list[int], count: int) -> NDArray[np.bool_]:
    """Candidates (M,) not to pick now: those picked, and known levels when too few are left."""
    barred = np.zeros(len(n), dtype=bool)
    barred[picked] = True
    left = count - len(picked)
    for axis in (n, d):
        have = levels(axis[picked]) if picked else np.empty(0)
        missing = min(FEWEST, len(levels(axis))) - len(have)
        if 0 < missing >= left and len(have):
            known = np.min(np.abs(np.log(axis[:, None] / have)), axis=1) < np.log(1.03)
            if not (barred | known).all():
                barred |= known
    return barred


def _known(law: Law | None, n: Array, d: Array, seed: int) -> tuple[Array, Array, Design]:
    """Worlds (W, K) in the coordinates of the gamma form, and the covariance (K, K) about each."""
    design = Design.of(n, d)
    rng = np.random.default_rng(seed)
    if law is None:
        centre, width = _belief()
        worlds = centre + width * rng.standard_normal((WORLDS, GAMMA.size))
        return worlds, np.diag(width**2), design
    theta = GAMMA.from_printed(law.allowed[:, : GAMMA.size], design)
    # A draw of an undetermined coordinate can lie anywhere; the worlds are the plausible ones.
    low, high = np.quantile(theta, [0.01, 0.99], axis=0)
    theta = np.clip(theta, low, high)
    covariance = np.atleast_2d(np.cov(theta.T)) + 1e-9 * np.eye(GAMMA.size)
    return theta[rng.choice(len(theta), min(WORLDS, len(theta)), False)], covariance, design


def _belief() -> tuple[Array, Array]:
    """Centre and width (6,) of the beliefs about a law whose losses are about 1."""
    half = np.log((1.0 - np.exp(FLOOR[0])) / 2.0)
    return (
        np.array([FLOOR[0], half, half, EXPONENT[0], EXPONENT[0], COMBINATION[0]]),
        np.array([FLOOR[1], SCALE, SCALE, EXPONENT[1], EXPONENT[1], COMBINATION[1]]),
    )
