"""From the losses of the proxies to the best mixture: what is minimised, whether the law can say.

Not for training (`mixing_runs`) nor promises (`mixing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from isoflop.laws.family import Estimate
from isoflop.laws.forms import Array
from isoflop.laws.mixture import MixtureLaw, interval, left_out
from isoflop.laws.tables import MixtureTable
from isoflop.planning.mixing_design import Shares, rounded
from isoflop.planning.mixing_recipe import MixtureRecipe

FEWEST_FORETOLD = 0.5
"""Share of the objective's variance over the mixtures that the law must foretell of a mixture left
out. Where the mixture moves nothing but luck, the share is below 0 in most searches and above this
in hardly any (tests/planning/test_mixing_law.py)."""


@dataclass(frozen=True)
class Objective:
    """What the search lowers."""

    domains: tuple[str, ...]
    goal: Array
    """Weight of each domain, (I,)."""
    reference: Array | None
    """Losses with the natural proportions, (I,), where the worst excess over them counts."""

    def of(self, losses: Array) -> Array:
        """The objective (...) of losses (..., I)."""
        if self.reference is None:
            return np.asarray(losses @ self.goal)
        counted = self.goal > 0.0
        return np.asarray((losses - self.reference)[..., counted].max(axis=-1))


@dataclass(frozen=True)
class Proposal:
    """The best mixture by the law, and what is promised of it."""

    weights: dict[str, Estimate]
    """Best shares; the values are of four decimals."""
    objective: Objective
    foretold: float
    """Share of the objective's variance that the law foretells of mixtures left out."""
    verdict: str
    """`supported`, or `unsupported` and why."""
    luck: float
    """Share of the scatter about the law that is luck from run to run, 0 to 1."""

    @property
    def supported(self) -> bool:
        """Whether the proxies support a promise."""
        return self.verdict == "supported"

    @property
    def best(self) -> dict[str, float]:
        """The best shares."""
        return {name: share.value for name, share in self.weights.items()}


def objective_of(recipe: MixtureRecipe, table: MixtureTable) -> Objective:
    """The objective of a recipe; the first `repeats` rows are the natural proportions."""
    goal = np.array([recipe.target.get(name, 0.0) for name in table.validation])
    worst = recipe.objective == "worst"
    reference = table.losses[: recipe.repeats].mean(axis=0) if worst else None
    return Objective(table.validation, goal, reference)


def propose(
    recipe: MixtureRecipe, shares: Shares, law: MixtureLaw, table: MixtureTable
) -> Proposal:
    """The best mixture within the limits, and whether the proxies support it."""
    objective = objective_of(recipe, table)
    limits = {"most": shares.most, "least": shares.least, "together": shares.together}
    if objective.reference is None:
        found = law.best(recipe.target, **limits, level=recipe.level)  # type: ignore[arg-type]
    else:
        counted = dict(zip(objective.domains, objective.reference, strict=True))
        counted = {name: counted[name] for name in recipe.target}
        found = law.worst_case(counted, **limits, level=recipe.level)  # type: ignore[arg-type]
    values = rounded({name: share.value for name, share in found.weights.items()})
    weights = {
        name: Estimate(
            values[name],
            min(share.low, values[name]),
            max(share.high, values[name]),
            share.level,
        )
        for name, share in found.weights.items()
    }
    foretold = _foretold(objective, table)
    verdict = law.verdict
    if law.supported and foretold < FEWEST_FORETOLD:
        verdict = (
            f"unsupported: fitted to the other mixtures, the law foretells {foretold:.0%} of how "
            "the objective differs between them; run more proxies, train them on more tokens, or "
            "accept that the mixture hardly matters here"
        )
    return Proposal(weights, objective, foretold, verdict, _luck(recipe, law, table))


def foretell(
    proposal: Proposal, law: MixtureLaw, weights: Mapping[str, float], runs: int, level: float
) -> dict[str, Estimate]:
    """The mean losses of so many runs with a mixture, by domain, and the objective (under "").

    What the law misses of a mixture stays, whatever the runs; the luck averages out.
    """
    mixture = np.array([[weights[name] for name in law.training]])
    left = float(np.sqrt(1.0 - proposal.luck + proposal.luck / runs))
    drawn, centre = law.outcomes(mixture, left)[:, 0], law.losses(mixture)[0]
    found = {
        name: interval(float(centre[i]), drawn[:, i], level)
        for i, name in enumerate(law.validation)
    }
    objective = proposal.objective
    found[""] = interval(float(objective.of(centre)), objective.of(drawn), level)
    return found


def measured_gain(natural: Sequence[float], best: Sequence[float], level: float) -> Estimate:
    """By how much the mean objective of the best mixture's runs lies below the natural one's, with
    Student's interval on the luck that both sets of runs show."""
    first, second = np.array(natural), np.array(best)
    value = float(first.mean() - second.mean())
    freedom = len(first) + len(second) - 2
    squares = np.sum((first - first.mean()) ** 2) + np.sum((second - second.mean()) ** 2)
    spread = float(np.sqrt(squares / freedom * (1.0 / len(first) + 1.0 / len(second))))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * spread
    return Estimate(value, value - half, value + half, level)


def _foretold(objective: Objective, table: MixtureTable) -> float:
    """1 - squared error of left-out mixtures over the squared error of the mean of the others.

    A mixture with the largest or smallest share of a source is not asked for: the others would have
    to be extrapolated to it, which the search never does.
    """
    inner = _inner(table.weights)
    seen = objective.of(table.losses)
    off = seen - objective.of(left_out(table.weights, table.losses))
    same = (np.abs(table.weights[:, None] - table.weights[None]) < 1e-9).all(axis=2)
    others = np.where(same, 0.0, 1.0)
    plain = seen - others @ seen / others.sum(axis=1)
    # Runs of one mixture count as one.
    count = np.where(inner, 1.0 / same.sum(axis=1), 0.0)
    return float(1.0 - np.sum(count * off**2) / np.sum(count * plain**2))


def _inner(weights: Array) -> NDArray[np.bool_]:
    """Mixtures with neither the largest nor the smallest share of any source; all if none is."""
    ends = np.stack([weights.min(axis=0), weights.max(axis=0)])
    inner = (np.abs(weights[None] - ends[:, None]) > 1e-9).all(axis=(0, 2))
    return inner if inner.any() else np.ones(len(weights), dtype=bool)


def _luck(recipe: MixtureRecipe, law: MixtureLaw, table: MixtureTable) -> float:
    """The variance between equal runs over that about the law, all domains together."""
    equal = np.log(table.losses[: recipe.repeats]).var(axis=0, ddof=1)
    about = np.square(law.noise["scatter"])
    return float(min(1.0, np.mean(equal / about)))
