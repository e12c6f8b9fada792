"""Domain losses as functions of mixture weights, and the best mixture; not for sampling the data.

For validation domain i and training weights r on the simplex (Ye et al. 2024, Data Mixing Laws,
eq. 6):

    L_i(r) = c_i + k_i · exp(sum_j t_ij · r_j)

Because the weights add up to 1, k_i and a constant added to the t_ij say the same; the mean of t_ij
over j is printed as 0. Every L_i is convex in r, so a target weighting of the domains has one best
mixture, and so has the worst case. Shape legend: `B` resamples, `R` runs, `I` validation domains,
`J` training domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.errors import TableError
from isoflop.laws.family import (
    Beliefs,
    Estimate,
    Family,
    check_level,
    check_refits,
    ends,
    fit_curves,
    named,
    resamples,
    spread,
)
from isoflop.laws.forms import Array

FORM = "mixture"
FORMULA = "L_i(r) = c_i + k_i*exp(sum_j t_ij*r_j)"
SIMPLEX = 1e-3  # rounding that weights adding up to 1 may show
PROPOSALS = 512
DRAW_STEPS = 30
STEPS = 400
SLOPE_WIDTH = 3.0  # nobody has published a t beyond: losses would change by e^3 between domains
FLOOR_SHARE = 0.5
FLOOR_WIDTH = 1.0


@dataclass(frozen=True)
class Mixture:
    """Weights proposed, and what they are to give."""

    weights: dict[str, Estimate]
    losses: dict[str, Estimate]
    objective: Estimate
    """The weighted mean of the losses, or the worst excess, that was minimised."""

    def to_dict(self) -> dict[str, Any]:
        """The proposal as the command line prints it."""
        return {
            "weights": {name: w.to_dict() for name, w in self.weights.items()},
            "losses": {name: value.to_dict() for name, value in self.losses.items()},
            "objective": self.objective.to_dict(),
        }


@dataclass(frozen=True)
class MixtureLaw(Family):
    """A law fitted by `fit_mixture`.

    `noise` holds `training` and `validation`, the names of the domains, and `scatter`, the standard
    deviation of each validation domain's log loss.
    """

    @property
    def training(self) -> tuple[str, ...]:
        """The domains that are mixed, J names."""
        return tuple(self.noise["training"])

    @property
    def validation(self) -> tuple[str, ...]:
        """The domains whose loss is known, I names."""
        return tuple(self.noise["validation"])

    def losses(self, weights: ArrayLike) -> Array:
        """Losses (A, I) of mixtures (A, J), nats per token."""
        mixtures = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        return np.asarray(_losses(*self._parts(self.values()), mixtures)[0])

    def predict(self, weights: Mapping[str, float], level: float = 0.9) -> dict[str, Estimate]:
        """The loss of each validation domain under a mixture, with its interval.

        Raises:
            TableError: A domain is unknown, or the weights are no shares adding up to 1.
        """
        check_level(level)
        unknown = [name for name in weights if name not in self.training]
        if unknown:
            raise TableError(
                f"the law knows no training domain {', '.join(unknown)}",
                fix=f"It knows {', '.join(self.training)}",
            )
        mixture = np.array([[float(weights.get(name, 0.0)) for name in self.training]])
        _check_simplex(mixture, "weights")
        return self._estimates(mixture, level)

    def best(
        self,
        target: Mapping[str, float] | None = None,
        *,
        most: Mapping[str, float] | None = None,
        level: float = 0.9,
        seed: int = 0,
    ) -> Mixture:
        """The mixture with the lowest weighted mean of the validation losses.

        Args:
            target: Weight of each validation domain; equal ones when None.
            most: Largest share of a training domain, where its data are few.

        Raises:
            TableError: An unknown domain, weights that are not positive somewhere, or limits that
                leave no mixture.
        """
        goal = self._goal(target)
        return self._search(goal[None], np.zeros((1, 1)), most, level, seed)

    def worst_case(
        self,
        reference: Mapping[str, float],
        *,
        most: Mapping[str, float] | None = None,
        level: float = 0.9,
        seed: int = 0,
    ) -> Mixture:
        """The mixture whose worst excess over the reference losses is least: the aim of DoReMi
        (Xie et al. 2023), reached on the law instead of by training a proxy.

        Args:
            reference: Loss of each validation domain under the mixture to compare with.
        """
        absent = [name for name in self.validation if name not in reference]
        if absent:
            raise TableError(f"the reference has no loss of {', '.join(absent)}", where=FORM)
        offsets = np.array([[float(reference[name]) for name in self.validation]])
        return self._search(np.eye(len(self.validation)), offsets.T, most, level, seed)

    def _goal(self, target: Mapping[str, float] | None) -> Array:
        given = dict.fromkeys(self.validation, 1.0) if target is None else dict(target)
        unknown = [name for name in given if name not in self.validation]
        goal = np.array([float(given.get(name, 0.0)) for name in self.validation])
        if unknown or np.any(goal < 0.0) or not goal.sum() > 0.0:
            raise TableError(
                f"the target weighs {', '.join(unknown) or 'nothing or something negatively'}",
                where=FORM,
                fix=f"Weigh {', '.join(self.validation)} with numbers from 0",
            )
        return np.asarray(goal / goal.sum())

    def _search(
        self, rows: Array, offsets: Array, most: Mapping[str, float] | None, level: float, seed: int
    ) -> Mixture:
        """Minimise max over rows of (row · L(r) - offset), for the law and for each draw."""
        check_level(level)
        upper = np.array([float((most or {}).get(name, 1.0)) for name in self.training])
        if upper.sum() < 1.0 - SIMPLEX or np.any(upper < 0.0):
            raise TableError(
                f"the limits allow {upper.sum():.0%} of a mixture",
                where="most",
                fix="Let the largest shares add up to at least 1",
            )
        rng = np.random.default_rng(seed)
        point = _minimise(*self._parts(self.values()), rows, offsets, upper, rng)[0]
        drawn = _minimise(*self._parts(self.draws), rows, offsets, upper, rng)
        inside = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        weights = {
            name: Estimate(float(p), float(min(a, p)), float(max(b, p)), level)
            for name, p, a, b in zip(self.training, point, *inside, strict=True)
        }
        losses = self._estimates(point[None], level)
        at_draws = _losses(*self._parts(self.draws), point[None])[:, 0]
        reached = (at_draws @ rows.T - offsets.T).max(axis=1)
        value = float((self.losses(point) @ rows.T - offsets.T).max())
        low, high = np.quantile(reached, [0.5 - level / 2, 0.5 + level / 2])
        objective = Estimate(value, float(min(low, value)), float(max(high, value)), level)
        return Mixture(weights, losses, objective)

    def _estimates(self, mixture: Array, level: float) -> dict[str, Estimate]:
        centre = self.losses(mixture)[0]
        drawn = np.log(np.maximum(_losses(*self._parts(self.draws), mixture)[:, 0], 1e-9))
        reach = NormalDist().inv_cdf(0.5 + level / 2)
        half = reach * np.hypot(drawn.std(axis=0), self.noise["scatter"])
        return {
            name: Estimate(float(v), float(v * np.exp(-h)), float(v * np.exp(h)), level)
            for name, v, h in zip(self.validation, centre, half, strict=True)
        }

    def _parts(self, printed: Array) -> tuple[Array, Array]:
        """c (B, I) and slopes (B, I, J), ln k_i included, of printed parameters (B, K)."""
        table = printed.reshape(len(printed), len(self.validation), 2 + len(self.training))
        return table[:, :, 0], np.log(table[:, :, 1:2]) + table[:, :, 2:]


def from_document(document: Mapping[str, Any]) -> MixtureLaw:
    """The law of a `law.json` document; ArtifactError where it is not one."""
    return MixtureLaw.from_document(document)


def fit_mixture(
    weights: ArrayLike,
    losses: ArrayLike,
    *,
    training: Sequence[str],
    validation: Sequence[str],
    bootstrap: int = 300,
    seed: int = 0,
) -> MixtureLaw:
    """Fit the law to runs that differ in their mixture alone (same size, same tokens).

    Args:
        weights: Mixtures (R, J); rows add up to 1.
        losses: Losses (R, I) of the validation domains, nats per token.

    Raises:
        TableError: Shapes or names disagree, weights are no shares, losses are not positive, or
            there are too few different mixtures. With fewer than J + 2 of them the verdict is
            `unsupported`.
    """
    check_refits(bootstrap)
    r = np.asarray(weights, dtype=np.float64)
    loss = np.asarray(losses, dtype=np.float64)
    runs, count = r.shape[0], len(training)
    if r.shape != (runs, count) or loss.shape != (runs, len(validation)):
        raise TableError(
            f"weights {r.shape} and losses {loss.shape} do not fit {count} training and "
            f"{len(validation)} validation domains",
            where=FORM,
        )
    _check_simplex(r, "weights")
    if not np.all(np.isfinite(loss) & (loss > 0.0)):
        raise TableError("a loss is missing or not positive", where=FORM)
    different = len(np.unique(np.round(r, 6), axis=0))
    if np.linalg.matrix_rank(r - r.mean(axis=0), tol=1e-6) < count - 1 or different < 3:
        raise TableError(
            f"{different} mixtures do not span the {count} domains",
            where=FORM,
            fix="Add mixtures until every domain's share varies on its own",
        )
    rng = np.random.default_rng(seed)
    repeats = np.concatenate([np.ones((1, runs)), resamples(np.arange(runs), bootstrap, rng)])
    tables, scatter = [], []
    for column in loss.T:
        table, deviation = _fit_domain(r, column, repeats)
        tables.append(table)
        scatter.append(deviation)
    printed = np.stack(tables, axis=1).reshape(len(repeats), -1)
    names = [
        name
        for domain in validation
        for name in (f"c[{domain}]", f"k[{domain}]", *(f"t[{domain}, {j}]" for j in training))
    ]
    verdict = "supported"
    if different < count + 2:
        verdict = (
            f"unsupported: {different} mixtures for the {count + 1} unknowns of each domain; add "
            f"{count + 2 - different} or more, far from those"
        )
    return MixtureLaw(
        form=FORM,
        formula=FORMULA,
        parameters=named(names, printed[0]),
        stderr=named(names, spread(printed[1:])),
        draws=printed[1:],
        noise={"training": list(training), "validation": list(validation), "scatter": scatter},
        objective="lsq",
        n_runs=runs,
        domain={name: ends(r[:, j]) for j, name in enumerate(training)},
        source=(),
        warnings=(),
        verdict=verdict,
    )


def _check_simplex(weights: Array, where: str) -> None:
    total = weights.sum(axis=1)
    bad = (np.abs(total - 1.0) > SIMPLEX) | np.any(weights < -SIMPLEX, axis=1)
    bad |= ~np.all(np.isfinite(weights), axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise TableError(
            f"mixture {row} has weights adding up to {total[row]:g}, or a negative one",
            where=where,
            fix="Give shares that add up to 1",
        )


def _fit_domain(r: Array, loss: Array, repeats: Array) -> tuple[Array, float]:
    """Printed c, k, t (B, 2 + J) for each resample, and the scatter of the log loss.

    Coordinates: the floor as a share of the lowest loss, through a logistic, and ln of what the
    loss has above it in each pure domain. Weak beliefs hold what no mixture shows.
    """
    lowest, domains = float(loss.min()), r.shape[1]
    target = np.log(loss)

    def model(theta: Array) -> tuple[Array, Array]:
        share = 1.0 / (1.0 + np.exp(-theta[:, :1]))
        rise = np.exp(np.clip(theta[:, 1:] @ r.T, -50.0, 50.0))
        value = share * lowest + rise
        jacobian = np.empty((len(theta), len(r), 1 + domains))
        jacobian[:, :, 0] = share * (1.0 - share) * lowest
        jacobian[:, :, 1:] = rise[:, :, None] * r
        return np.log(value), jacobian / value[:, :, None]

    above = np.log(np.maximum(loss - 0.5 * lowest, 1e-6 * lowest))
    slopes = np.linalg.lstsq(r, above, rcond=None)[0]
    start = np.concatenate([[0.0], slopes])
    centre = np.append(0.0, np.full(domains, float(above.mean())))
    width = np.append(FLOOR_WIDTH, np.full(domains, SLOPE_WIDTH))
    scatter, freedom = 0.01, max(len(r) - domains - 1, 1)
    for _ in range(3):  # the weight of the beliefs depends on the scatter, and it on the fit
        beliefs = Beliefs(centre, scatter**2 / width**2)
        best = fit_curves(model, target, np.ones(len(r)), start[None], beliefs, 200)[0]
        off = model(best)[0][0] - target
        scatter = max(float(np.sqrt(off @ off / freedom)), 1e-9)
    starts = np.broadcast_to(best[0], (len(repeats), 1 + domains))
    theta = fit_curves(model, target, repeats, starts, beliefs, DRAW_STEPS)[0]
    theta[0] = best[0]
    level = theta[:, 1:].mean(axis=1, keepdims=True)
    floor = lowest / (1.0 + np.exp(-theta[:, :1]))
    return np.concatenate([floor, np.exp(level), theta[:, 1:] - level], axis=1), scatter


def _losses(floor: Array, slopes: Array, mixtures: Array) -> Array:
    """Losses (B, A, I) of floors (B, I) and slopes (B, I, J) at mixtures (A, J)."""
    rise = np.exp(np.clip(np.einsum("bij,aj->bai", slopes, mixtures), -50.0, 50.0))
    return np.asarray(floor[:, None, :] + rise)


def _minimise(
    floor: Array, slopes: Array, rows: Array, offsets: Array, upper: Array,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """The best mixture (B, J) of each law: the best Dirichlet proposal, then mirror descent.

    The objective is convex, so the descent from the proposal ends at the one optimum; the proposals
    only save steps (RegMix's search, Liu et al. 2024, without its million of them).
    """
    count = slopes.shape[2]
    proposals = _below(rng.dirichlet(np.ones(count), size=PROPOSALS), upper)
    worth = (_losses(floor, slopes, proposals) @ rows.T - offsets.T).max(axis=2)
    at = proposals[np.argmin(worth, axis=1)]
    best, lowest = at, worth.min(axis=1)
    scale = np.abs(slopes).max()
    for step in range(STEPS):
        rise = np.exp(np.clip(np.einsum("bij,bj->bi", slopes, at), -50.0, 50.0))
        values = (floor + rise) @ rows.T - offsets.T
        worst = values.argmax(axis=1)
        found = values.max(axis=1)
        better = found < lowest
        best, lowest = np.where(better[:, None], at, best), np.where(better, found, lowest)
        gradient = np.einsum("bi,bij->bj", rows[worst] * rise, slopes)
        size = np.abs(gradient).max(axis=1, keepdims=True) + 1e-12
        pull = -gradient / size * min(1.0, 4.0 / (1.0 + scale)) * 2.0 / np.sqrt(1.0 + step)
        at = at * np.exp(pull - pull.max(axis=1, keepdims=True)) + 1e-12
        at = _below(at / at.sum(axis=1, keepdims=True), upper)
    return np.asarray(best)


def _below(mixtures: Array, upper: Array) -> Array:
    """The mixtures under the largest shares (J,) that are nearest (in relative entropy) to mixtures
    (A, J): shares above their limit are cut to it, the others scaled up alike."""
    cut = np.zeros(mixtures.shape, dtype=bool)
    found = mixtures
    for _ in range(len(upper)):
        cut |= found > upper
        free = np.where(cut, 0.0, mixtures)
        left = 1.0 - np.sum(cut * upper, axis=1, keepdims=True)
        scaled = free * left / np.maximum(free.sum(axis=1, keepdims=True), 1e-300)
        found = np.where(cut, upper, scaled)
    return np.asarray(found)
