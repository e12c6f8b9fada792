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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.errors import TableError
from isoflop.laws.family import (
    Estimate,
    Family,
    check_level,
    check_refits,
    ends,
    fit_curves,
    named,
    spread,
)
from isoflop.laws.forms import Array
from isoflop.laws.mixture_fit import DRAW_STEPS, curve, fit_domain, refits
from isoflop.laws.simplex import SIMPLEX, Limits, losses_of, minimise

FORM = "mixture"
FORMULA = "L_i(r) = c_i + k_i*exp(sum_j t_ij*r_j)"
NOISES = 10
"""Outcomes simulated of each draw of a law."""
FEWEST_FREEDOM = 3


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

    `noise` holds `training` and `validation`, the names of the domains; `scatter`, the standard
    deviation of each validation domain's log loss about the law, and `covariance`, the same between
    domains (a run that is lucky in one is often lucky in another); and `freedom`, the runs beyond
    the unknowns of a domain, which say how well those are known.
    """

    NEEDS = ("training", "validation", "covariance", "freedom")

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
        return np.asarray(losses_of(*self._parts(self.values()), mixtures)[0])

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
        least: Mapping[str, float] | None = None,
        together: tuple[Collection[str], float] | None = None,
        level: float = 0.9,
        seed: int = 0,
    ) -> Mixture:
        """The mixture with the lowest weighted mean of the validation losses.

        Args:
            target: Weight of each validation domain; equal ones when None.
            most: Largest share of a training domain, where its data are few.
            least: Smallest share, below which the law was not fitted.
            together: Training domains, and the largest sum of their shares.

        Raises:
            TableError: An unknown domain, weights that are not positive somewhere, or limits that
                leave no mixture.
        """
        limits = Limits.of(self.training, most=most, least=least, together=together)
        return self._search(self._goal(target)[None], np.zeros(1), limits, level, seed)

    def worst_case(
        self,
        reference: Mapping[str, float],
        *,
        most: Mapping[str, float] | None = None,
        least: Mapping[str, float] | None = None,
        together: tuple[Collection[str], float] | None = None,
        level: float = 0.9,
        seed: int = 0,
    ) -> Mixture:
        """The mixture whose worst excess over the reference losses is least: the aim of DoReMi
        (Xie et al. 2023), reached on the law instead of by training a proxy.

        Args:
            reference: Loss of each validation domain under the mixture to compare with; a domain
                left out does not count.

        Raises:
            TableError: No domain of the law has a reference, or as `best`.
        """
        rows, offsets = self._excess(reference)
        limits = Limits.of(self.training, most=most, least=least, together=together)
        return self._search(rows, offsets, limits, level, seed)

    def outcomes(
        self, weights: ArrayLike, noise: float | Sequence[float] = 1.0, seed: int = 0
    ) -> Array:
        """Plausible losses (S, A, I) of runs with mixtures (A, J): draws of the law, each with the
        scatter of runs about it.

        Args:
            noise: Of each mixture, the share of the scatter that is left: below 1 for the mean of
                several runs.
        """
        mixtures = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        centre = np.log(np.maximum(losses_of(*self._parts(self.draws), mixtures), 1e-9))
        centre = np.tile(centre, (NOISES, 1, 1))
        rng = np.random.default_rng(seed)
        values, vectors = np.linalg.eigh(np.array(self.noise["covariance"]))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        luck = rng.standard_normal(centre.shape) @ root.T
        luck *= _uncertain_scale(self.noise["freedom"], len(centre), rng)[:, None, None]
        return np.asarray(np.exp(centre + np.broadcast_to(noise, len(mixtures))[:, None] * luck))

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

    def _excess(self, reference: Mapping[str, float]) -> tuple[Array, Array]:
        counted = [i for i, name in enumerate(self.validation) if name in reference]
        if not counted:
            raise TableError(
                "the reference has no loss of any of the domains",
                where=FORM,
                fix=f"They are {', '.join(self.validation)}",
            )
        offsets = np.array([float(reference[self.validation[i]]) for i in counted])
        return np.eye(len(self.validation))[counted], offsets

    def _search(
        self, rows: Array, offsets: Array, limits: Limits, level: float, seed: int
    ) -> Mixture:
        """Minimise max over rows of (row · L(r) - offset), for the law and for each draw."""
        check_level(level)
        rng = np.random.default_rng(seed)
        point = minimise(*self._parts(self.values()), rows, offsets, limits, rng)[0]
        drawn = minimise(*self._parts(self.draws), rows, offsets, limits, rng)
        weights = {
            name: interval(float(value), drawn[:, j], level)
            for j, (name, value) in enumerate(zip(self.training, point, strict=True))
        }
        reached = (self.outcomes(point)[:, 0] @ rows.T - offsets).max(axis=1)
        value = float((self.losses(point) @ rows.T - offsets).max())
        return Mixture(
            weights, self._estimates(point[None], level), interval(value, reached, level)
        )

    def _estimates(self, mixture: Array, level: float) -> dict[str, Estimate]:
        centre, simulated = self.losses(mixture)[0], self.outcomes(mixture)[:, 0]
        return {
            name: interval(float(value), simulated[:, i], level)
            for i, (name, value) in enumerate(zip(self.validation, centre, strict=True))
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
    fits = [fit_domain(r, column) for column in loss.T]
    off = np.stack([fit.residual for fit in fits], axis=1)
    freedom = max(runs - count - 1, 1)
    rng = np.random.default_rng(seed)
    # Rows of residuals combined at random: noise of their covariance, domains kept together.
    luck = rng.standard_normal((bootstrap, runs, runs)) @ off / np.sqrt(freedom)
    luck *= _uncertain_scale(freedom, bootstrap, rng)[:, None, None]
    tables = [refits(fit, r, luck[:, :, i], rng) for i, fit in enumerate(fits)]
    printed = np.stack(tables, axis=1).reshape(1 + bootstrap, -1)
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
        noise={
            "training": list(training),
            "validation": list(validation),
            "scatter": [fit.scatter for fit in fits],
            "covariance": (off.T @ off / freedom).tolist(),
            "freedom": freedom,
        },
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


def left_out(weights: ArrayLike, losses: ArrayLike) -> Array:
    """Losses (R, I) that the law foretells of each mixture when fitted to the others alone; runs of
    one mixture are left out together.

    Raises:
        TableError: Shapes disagree.
    """
    r, loss = np.asarray(weights, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if r.ndim != 2 or loss.ndim != 2 or len(r) != len(loss):
        raise TableError(f"weights {r.shape} and losses {loss.shape} do not fit", where=FORM)
    _, group = np.unique(np.round(r, 6), axis=0, return_inverse=True)
    kept = (group.ravel()[:, None] != group.ravel()[None, :]).astype(np.float64)
    found = np.empty_like(loss)
    for i, column in enumerate(loss.T):
        fit = fit_domain(r, column)
        starts = np.broadcast_to(fit.theta, (len(r), len(fit.theta)))
        target = np.log(column)
        theta = fit_curves(curve(fit.lowest, r), target, kept, starts, fit.beliefs, DRAW_STEPS)[0]
        found[:, i] = np.exp(np.diagonal(curve(fit.lowest, r)(theta)[0]))
    return found


def interval(value: float, drawn: Array, level: float) -> Estimate:
    """A value with the interval of draws (S,) of it, which it lies within."""
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(min(low, value)), float(max(high, value)), level)


def _uncertain_scale(freedom: int, count: int, rng: np.random.Generator) -> Array:
    """Draws (count,) of the true standard deviation over the one measured."""
    free = max(freedom, FEWEST_FREEDOM)  # below, the draws would have no mean
    return np.asarray(np.sqrt(free / rng.chisquare(free, size=count)))
