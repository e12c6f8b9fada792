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
from isoflop.laws.forms import GAMMA, Array, Design, get_form
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
RELEVANCES = (0.0, 8.0, 16.0)
"""Of the worlds in turn (`averaging`): before the runs are made one cannot know how far up the law
holds. A design at the low end alone would not tell the exponents; one spread over everything would
trust runs of another regime."""
NOISE = 0.004
"""Run-to-run noise of ln loss where no law says what it is."""
WORLDS = 32


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
    """Where the drop crosses 3.84; infinite or 0 where it does not within the range tried."""

    @property
    def determined(self) -> bool:
        """Whether the profile rises on both sides."""
        return np.isfinite(self.high) and self.low > 0.0


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
        points: Values tried, over a factor 8 on either side of the best.

    Raises:
        TableError: The form has no such parameter.
    """
    chosen = get_form(form)
    names = {"E": 0, "p": 3, "q": 4} | ({"g": 5} if chosen.free_combination else {})
    if not chosen.floor:
        del names["E"]
    if parameter not in names:
        raise TableError(
            f"the form {form} has no profile of {parameter!r}",
            where="parameter",
            fix=f"Choose one of {', '.join(names)}",
        )
    column = names[parameter]
    design = Design.of(table.params, table.tokens)
    sigma = measure_noise(table, design, chosen).run_to_run
    prior = weak_prior(chosen, table, sigma)
    log_loss, delta = np.log(table.loss), np.array(ROBUST * sigma)

    def solve(beliefs: Prior, start: Array) -> tuple[Array, Array]:
        problem = Problem(chosen, design, log_loss, table.weight, delta, beliefs)
        found = minimise(problem, start)
        return found.theta, found.objective

    theta, best = solve(prior, prior.centre[None])
    span = np.linspace(-np.log(8.0), np.log(8.0), points)
    fixed = theta[0, column] + span
    centre = np.repeat(prior.centre[None], points, axis=0)
    precision = np.repeat(prior.precision[None], points, axis=0)
    centre[:, column], precision[:, column] = fixed, PINNED
    start = np.repeat(theta, points, axis=0)
    start[:, column] = fixed
    _, objective = solve(Prior(centre, precision), start)
    # The belief about the coordinate itself is part of the likelihood that is profiled.
    objective = objective + 0.5 * prior.precision[column] * (fixed - prior.centre[column]) ** 2
    drop = 2.0 * (objective - best[0]) / sigma**2
    values = np.exp(fixed)
    return Profile(
        parameter,
        tuple(values.tolist()),
        tuple(np.maximum(drop, 0.0).tolist()),
        float(np.exp(theta[0, column])),
        _crossing(values[span <= 0.0][::-1], drop[span <= 0.0][::-1], 0.0),
        _crossing(values[span >= 0.0], drop[span >= 0.0], np.inf),
    )


def _crossing(values: Array, drop: Array, otherwise: float) -> float:
    """Where the drop first exceeds 3.84 going outwards."""
    beyond = np.flatnonzero(drop > 3.84)
    if not len(beyond):
        return otherwise
    i = int(beyond[0])
    if i == 0:
        return float(values[0])
    # The root of the drop is nearly straight where the likelihood is nearly normal.
    inner, outer = np.sqrt(np.maximum(drop[i - 1 : i + 1], 0.0))
    part = (np.sqrt(3.84) - inner) / (outer - inner)
    return float(np.exp(np.log(values[i - 1]) + part * np.log(values[i] / values[i - 1])))


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
    # Covariance of ln loss between places is all that the updates need; (W, M + 1, M + 1).
    joint = gradient @ covariance @ gradient.swapaxes(1, 2)
    whole = joint[:, -1, -1].copy()
    cost = FLOPS_PER_PARAMETER_TOKEN * n * d
    chosen: list[NextRun] = []
    picked: list[int] = []
    for _ in range(min(count, len(n))):
        own = np.einsum("wmm->wm", joint)[:, :-1] + noise
        removed = joint[:, :-1, -1] ** 2 / own
        left = np.maximum(1.0 - removed / joint[:, -1:, -1], 1e-12)
        worth = -np.mean(np.log(left), axis=0) / cost**thrift
        worth[_barred(n, d, picked, count)] = -np.inf
        best = int(np.argmax(worth))
        gain = float(np.mean(removed[:, best] / whole))
        gained = joint[:, :, best] / np.sqrt(own[:, best, None])
        joint = joint - gained[:, :, None] * gained[:, None, :]
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
