"""Averages over forms and over how much of the table to trust: the `auto` form.

Not for the fits a user asks for by name (fit) nor for scoring forms for a reader (backtest).

No form holds over all of a table. Runs far above the lowest losses (few steps, warm-up not over, a
size far too large for its data) obey another law than the ones a forecast is about, and a fit that
follows them bends where it matters. So a member of the average is a form **and a relevance** kappa:
run i is fitted with the variance

    sigma² · exp(kappa · h_i)        h_i = ln(loss_i / low), low the 5 % quantile of the losses

a variance function as in Carroll and Ruppert (1988, ch. 3), exponential because the residuals of
every form grow with h. kappa = 0 trusts all runs alike. Members are weighed by a **roll-out inside
the table**: fit the runs of at most 1/3 (1/10) of the largest compute, score the others; a member
whose errors are S gets a weight of prior · S^-m, the likelihood of m independent normal errors of
unknown scale. Neighbouring large runs share their error, so m is small whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.laws.forms import CHINCHILLA, GAMMA, KAPLAN_ND, Array, Design, Form
from isoflop.laws.interval import ROBUST, believed_noise, excess, prior_moments
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN
from isoflop.laws.records import RunTable, select
from isoflop.laws.solver import Prior, Problem, minimise
from isoflop.laws.support import FEWEST, levels

LOW = 0.05
"""Quantile of the losses that counts as the low end."""
RELEVANCES = (0.0, 8.0, 16.0, 24.0, 32.0)
RELEVANCE_PRIOR = (0.5, 1.0, 2.0, 2.0, 1.0)
AVERAGED = (GAMMA, CHINCHILLA, KAPLAN_ND)
FORM_PRIOR = (4.0, 1.0, 1.0)
"""The gamma form holds the other two as special cases."""
FLOOR_WIDTH = 0.15
"""Of the belief that E is 0.55 of the low losses (`interval.FLOOR`). Runs alone hardly tell E from
the bend of a power law, and a roll-out cannot either; on public tables of seven sources forecasts
were best with 0.5 to 0.65, whichever source was left out (docs/decisions.md)."""
KNOWN_FLOPS = 1e17
"""Compute from which on the published laws speak (`published_laws.json`; Gadre et al. 2024)."""
FLOOR_SLOPE = 0.1
"""ln of the floor's share per e-fold of compute below `KNOWN_FLOPS` that a constant one may be off:
Hoffmann et al. 2022 and Besiroglu et al. 2024, carried on to 1e14 FLOPs, fall by 0.11 and 0.13."""
CUTS = (3.0, 10.0)
FEWEST_FITTED = 8
FEWEST_SCORED = 3
FEWEST_OWN = 8
"""Runs above a cut that say something of how far off the table's own forecasts are."""
SCORED_RELEVANCE = 8.0
"""Relevance of the scored runs of a roll-out: the promises that matter are about low losses."""
MOST_SHAKEN = 0.3
"""A run of no relevance is shaken by at most this in ln loss: its weight does the rest."""
ERRORS = 4.0
"""m: independent errors that the scored runs of a roll-out are worth."""


@dataclass(frozen=True)
class Member:
    """One form at one relevance, and its share of the average."""

    form: str
    relevance: float
    share: float
    score: float | None
    """Root mean square of its errors of ln loss in the roll-out; None without one."""


@dataclass(frozen=True)
class Settled:
    """Fits of one form at every relevance (B of them)."""

    form: Form
    design: Design
    weight: Array
    """(B, R): weight of each run at each relevance."""
    theta: Array
    """(B, K)."""
    sigma: Array
    """(B,): run-to-run standard deviation at the low end."""
    degrees: Array
    """(B,)."""
    covariance: Array
    """(B, K, K): Laplace's, of the coordinates."""

    def forecast(self, params: Array, tokens: Array) -> tuple[Array, Array]:
        """ln loss at other runs and its variance from the coordinates, (B, R') each."""
        seen = self.form.evaluate(self.theta, self.design.at(params, tokens))
        variance = np.einsum("bkr,bkl,blr->br", seen.jacobian, self.covariance, seen.jacobian)
        return seen.log_loss, variance


@dataclass(frozen=True)
class RollOut:
    """What every member said of the runs above one cut, (F, B, R') with F forms."""

    error: Array
    """ln of forecast over outcome."""
    variance: Array
    """Of the forecast, from its coordinates and the noise."""
    distance: Array
    """(R',): ln of the compute over the largest fitted run's."""
    worth: Array
    """(R',): relevance of each run, 1 at the lowest loss."""

    @property
    def score(self) -> Array:
        """Root mean square error of each member, (F, B)."""
        return np.asarray(np.sqrt(self.error**2 @ self.worth / self.worth.sum()))


@dataclass(frozen=True)
class Weighed:
    """Every member fitted, and what its roll-out makes of it."""

    rolled: tuple[RollOut, ...]
    scores: Array | None
    share: Array
    """(F, B)."""
    settled: tuple[Settled, ...]
    """One per form."""


@dataclass(frozen=True)
class Average:
    """What `average` found."""

    members: tuple[Member, ...]
    """Those with draws, the largest share first."""
    form: Form
    """Of the first member."""
    theta: Array
    """(K,): the first member's coordinates."""
    allowed: Array
    """(B', 7): draws of every member by its share, as `Law.allowed`."""
    sigma: float
    degrees: float
    relevance: float
    low: float
    width: float
    """Of `own_width`."""
    weighed: Weighed


def low_end(table: RunTable) -> float:
    """The loss at which h is 0."""
    return float(np.quantile(table.loss, LOW))


def floor_width(table: RunTable) -> float:
    """Width of the belief about ln E: `FLOOR_WIDTH` where laws are published, wider below.

    The share of the floor in the loss falls with the compute, so a ladder of tiny models lies
    farther above E than any table that the belief comes from.
    """
    lowest = table.loss <= np.quantile(table.loss, 0.1)
    flops = FLOPS_PER_PARAMETER_TOKEN * table.params[lowest] * table.tokens[lowest]
    below = max(float(np.log(KNOWN_FLOPS) - np.log(flops).mean()), 0.0)
    return float(np.hypot(FLOOR_WIDTH, FLOOR_SLOPE * below))


def settle(table: RunTable, form: Form, design: Design, strength: float = 1.0) -> Settled:
    """Fit `form` at every relevance of `RELEVANCES`, with the noise that each implies.

    Args:
        strength: Of the beliefs about the exponents; see `fit.fit`.
    """
    kappa = np.array(RELEVANCES)[:, None]
    weight = table.weight * np.exp(-kappa * excess(table.loss, low_end(table)))
    log_loss = np.log(table.loss)
    centre, width = prior_moments(form, table, strength, floor_width(table))
    nu0, s0 = believed_noise(table)
    theta = np.repeat(centre[None], len(kappa), axis=0)
    sigma = np.full(len(kappa), 0.01)
    degrees = sigma
    for _ in range(8):
        prior = Prior(centre, sigma[:, None] ** 2 / width**2)
        problem = Problem(form, design, log_loss, weight, ROBUST * sigma[:, None], prior)
        theta = minimise(problem, theta).theta
        evaluation = form.evaluate(theta, design)
        residual = evaluation.log_loss - log_loss
        clipped = np.clip(residual, -ROBUST * sigma[:, None], ROBUST * sigma[:, None])
        jac = evaluation.jacobian
        information = (jac * weight[:, None, :]) @ jac.swapaxes(1, 2)
        posterior = information + prior.precision[:, :, None] * np.eye(form.size)
        used = np.trace(np.linalg.solve(posterior, information), axis1=1, axis2=2)
        # Runs of little relevance tell little about the noise at the low end, so they count as
        # little as they weigh.
        degrees = nu0 + np.maximum(weight.sum(axis=1) - used, 0.0)
        new = np.sqrt((nu0 * s0**2 + np.sum(weight * clipped**2, axis=1)) / degrees)
        settled = float(np.max(np.abs(new / sigma - 1.0))) < 1e-2
        sigma = new
        if settled:
            break
    covariance = np.linalg.inv(posterior) * sigma[:, None, None] ** 2
    return Settled(form, design, weight, theta, sigma, degrees, covariance)


def roll_out(table: RunTable, strength: float = 1.0) -> tuple[RollOut, ...]:
    """Fit the runs below each cut, foretell the others; empty where the table is too small."""
    compute = table.params * table.tokens
    found = []
    for cut in CUTS:
        small = compute <= compute.max() / cut
        if small.sum() < FEWEST_FITTED or (~small).sum() < FEWEST_SCORED:
            continue
        inner, outer = select(table, small), select(table, ~small)
        if len(np.unique(inner.params)) < 2 or len(np.unique(inner.tokens)) < 2:
            continue
        design = Design.of(inner.params, inner.tokens)
        noisier = np.array(RELEVANCES)[:, None] * excess(outer.loss, low_end(inner))
        errors, variances = [], []
        for form in AVERAGED:
            fitted = settle(inner, form, design, strength)
            log_loss, variance = fitted.forecast(outer.params, outer.tokens)
            errors.append(log_loss - np.log(outer.loss))
            variances.append(variance + fitted.sigma[:, None] ** 2 * np.exp(noisier))
        found.append(
            RollOut(
                np.stack(errors),
                np.stack(variances),
                np.log(compute[~small] / compute[small].max()),
                np.exp(-SCORED_RELEVANCE * excess(outer.loss, float(outer.loss.min()))),
            )
        )
    return tuple(found)


def scores_of(rolled: Sequence[RollOut]) -> Array | None:
    """Scores (F, B): root mean square errors, averaged over the cuts; None without any."""
    if not rolled:
        return None
    return np.asarray(np.exp(np.mean(np.log(np.stack([r.score for r in rolled])), axis=0)))


def own_width(rolled: Sequence[RollOut], share: Array, drift: float) -> float:
    """How much wider than for other tables the intervals must be, at least 1.

    The root of (1 + r)/2, r the mean squared standardised error over the roll-outs with enough
    runs: a table's own residuals, shrunk half-way towards what other tables say (r = 1). It only
    widens: on public tables a good roll-out does not foretell a good forecast.
    """
    ratios = []
    for one in rolled:
        if len(one.worth) < FEWEST_OWN:
            continue
        error = np.einsum("fb,fbr->r", share, one.error)
        between = np.einsum("fb,fbr->r", share, (one.error - error) ** 2)
        variance = np.einsum("fb,fbr->r", share, one.variance) + between
        variance += (drift * one.distance) ** 2
        ratios.append(float(error**2 / variance @ one.worth / one.worth.sum()))
    if not ratios:
        return 1.0
    return float(np.sqrt(max(0.5 + 0.5 * float(np.mean(ratios)), 1.0)))


def told_apart(table: RunTable) -> NDArray[np.bool_]:
    """Which relevances (B,) leave the runs of `FEWEST` sizes; all where none does.

    A size counts while its runs together weigh as much as one run of the low end.
    """
    ordered = levels(table.params)
    member = np.argmin(np.abs(np.log(table.params[:, None] / ordered)), axis=1)
    above = excess(table.loss, low_end(table))
    sizes = [
        np.count_nonzero(np.bincount(member, table.weight * np.exp(-kappa * above)) >= 1.0)
        for kappa in RELEVANCES
    ]
    enough = np.array(sizes) >= FEWEST
    return enough if enough.any() else ~enough


def shares(
    scores: Array | None, floor: float, relevances: NDArray[np.bool_] | None = None
) -> Array:
    """Shares (forms, relevances) of the members, summing to 1.

    Args:
        scores: Of `roll_out`.
        floor: Noise of single runs; below it one score is as good as another.
        relevances: Which count, of `told_apart`; all when omitted.
    """
    prior = np.outer(FORM_PRIOR, RELEVANCE_PRIOR)
    if relevances is not None:
        prior = prior * relevances
    if scores is None:
        return np.asarray(prior / prior.sum())
    blurred = np.hypot(scores, floor)
    weight = prior * (blurred / blurred.min()) ** -ERRORS
    return np.asarray(weight / weight.sum())


def weigh(table: RunTable, design: Design, strength: float = 1.0) -> Weighed:
    """Fit every member and weigh them by their roll-out."""
    rolled = roll_out(table, strength)
    scores = scores_of(rolled)
    share = shares(scores, believed_noise(table)[1], told_apart(table))
    settled = tuple(settle(table, form, design, strength) for form in AVERAGED)
    return Weighed(rolled, scores, share, settled)


def average(
    table: RunTable,
    design: Design,
    count: int,
    rng: np.random.Generator,
    strength: float = 1.0,
    drift: float = 0.0,
) -> Average:
    """Fit every member, weigh them by their roll-out and draw about `count` laws from them all.

    Args:
        drift: Model error per e-fold of compute that other tables show (`calibration`).
    """
    weighed = weigh(table, design, strength)
    scores, share, settled = weighed.scores, weighed.share, weighed.settled
    allowed, members = [], []
    for i, fitted in enumerate(settled):
        wanted = np.round(share[i] * count).astype(np.intp)
        if wanted.sum():
            allowed.append(_draw(table, fitted, wanted, rng, strength))
        for j in np.flatnonzero(wanted):
            score = None if scores is None else float(scores[i, j])
            member = Member(fitted.form.name, RELEVANCES[j], float(share[i, j]), score)
            members.append((member, fitted, int(j)))
    members.sort(key=lambda m: -m[0].share)
    _, first, row = members[0]
    variance = np.stack([f.sigma for f in settled]) ** 2
    return Average(
        tuple(m for m, _, _ in members),
        first.form,
        first.theta[row],
        np.concatenate(allowed),
        float(np.sqrt(np.sum(share * variance))),
        float(np.sum(share * np.stack([f.degrees for f in settled]))),
        float(np.sum(share * np.array(RELEVANCES))),
        low_end(table),
        own_width(weighed.rolled, share, drift),
        weighed,
    )


def _draw(
    table: RunTable,
    fitted: Settled,
    wanted: NDArray[np.intp],
    rng: np.random.Generator,
    strength: float,
) -> Array:
    """`wanted[b]` laws of every relevance b, as rows of `Law.allowed`; see `interval.posterior`."""
    form, rows = fitted.form, np.repeat(np.arange(len(wanted)), wanted)
    degrees, weight = fitted.degrees[rows], fitted.weight[rows]
    sigma = fitted.sigma[rows] * np.sqrt(degrees / rng.chisquare(degrees))
    spread = np.minimum(sigma[:, None] / np.sqrt(weight), MOST_SHAKEN)
    normal = _mirrored(rng, rows, spread.shape[1] + form.size)
    shaken = np.log(table.loss) + spread * normal[:, form.size :]
    centre, width = prior_moments(form, table, strength, floor_width(table))
    jittered = centre + width * normal[:, : form.size]
    prior = Prior(jittered, sigma[:, None] ** 2 / width**2)
    problem = Problem(form, fitted.design, shaken, weight, ROBUST * sigma[:, None], prior)
    found = minimise(problem, fitted.theta[rows], iterations=40).theta
    printed = form.to_printed(found, fitted.design)
    if form.size < GAMMA.size:
        printed = np.column_stack([printed, np.ones(len(printed))])
    return np.column_stack([printed, sigma])


def _mirrored(rng: np.random.Generator, rows: NDArray[np.intp], columns: int) -> Array:
    """Standard normals (len(rows), columns), each second draw of a member the one before turned
    round: their medians then hardly depend on the seed (antithetic variates)."""
    normal = rng.standard_normal((len(rows), columns))
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    odd = np.flatnonzero(place % 2)
    normal[odd] = -normal[odd - 1]
    return normal
