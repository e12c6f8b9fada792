"""Which mixtures to try: limits of the shares, natural proportions, points that fill the simplex.

Not for running them (`mixing_runs`). Shape legend: `J` sources that are mixed, `P` proxies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoflop.core.errors import RecipeError, TableError
from isoflop.data.shards import open_shards
from isoflop.laws import load_law
from isoflop.laws.forms import Array
from isoflop.laws.repetition import FORM as DATA_CONSTRAINED
from isoflop.laws.repetition import effective_data
from isoflop.laws.simplex import Limits
from isoflop.planning.mixing_recipe import MixtureRecipe

NEAR_VERTEX = 0.9
"""Share of one source in the mixture that is mostly of it."""
CANDIDATES = 4096
PLACES = 4
"""Decimals of a share."""


@dataclass(frozen=True)
class Shares:
    """What each source may have."""

    unique_tokens: dict[str, int]
    """Training tokens of its shards."""
    natural: dict[str, float]
    """Its share of all of them."""
    least: dict[str, float]
    most: dict[str, float]
    together: tuple[tuple[str, ...], float]
    """The synthetic sources, and the largest sum of their shares."""
    repetition: float
    """R_D*."""
    warnings: tuple[str, ...]
    """Sources that the data-constrained law limits."""

    @property
    def limits(self) -> Limits:
        """The same as arrays.

        Raises:
            TableError: No mixture lies within them.
        """
        return Limits.of(
            tuple(self.natural), most=self.most, least=self.least, together=self.together
        )

    def use(self, weights: Mapping[str, float], tokens: int) -> dict[str, dict[str, float]]:
        """Tokens and epochs of each source in a run, and the fresh tokens they are worth."""
        found = {}
        for name, share in weights.items():
            seen = max(share * tokens, 1.0)
            epochs = seen / self.unique_tokens[name]
            worth = effective_data(seen, self.unique_tokens[name], repetition=self.repetition)
            found[name] = {"tokens": share * tokens, "epochs": epochs, "fresh_tokens": worth.fresh}
        return found


def shares_of(recipe: MixtureRecipe) -> Shares:
    """Natural proportions and limits of the sources of a recipe.

    Raises:
        ArtifactError: Shards or the law cannot be used.
        RecipeError: The limits leave no mixture, or the law is of another form.
    """
    sources = [source for source in recipe.sources if source.train]
    unique = {s.name: open_shards(s.shards).train.n_tokens for s in sources}
    total = sum(unique.values())
    natural = {name: tokens / total for name, tokens in unique.items()}
    repetition = _repetition(recipe)
    most, warnings = {}, []
    for source in sources:
        allowed = (1.0 + repetition) * unique[source.name] / recipe.target_tokens
        most[source.name] = min(source.most, allowed, 1.0)
        if allowed < source.most:
            warnings.append(
                f"{source.name}: its {unique[source.name]:,} tokens may be {allowed:.1%} of "
                f"{recipe.target_tokens:,} at most: that is {1.0 + repetition:.1f} times each, "
                "after which repetition hardly helps (Muennighoff et al. 2023)"
            )
    least = {name: min(recipe.least, natural[name], most[name]) for name in unique}
    shares = Shares(
        unique, natural, least, most, (recipe.synthetic, recipe.synthetic_most), repetition,
        tuple(warnings),
    )  # fmt: skip
    try:
        _ = shares.limits
    except TableError as error:
        raise RecipeError(
            f"{error.what}: {'; '.join(warnings) or 'most and synthetic_most are too small'}",
            where="mixture recipe",
            fix="Mix for a shorter run (target_tokens), gather more text, or raise the limits",
        ) from None
    return shares


def design(recipe: MixtureRecipe, shares: Shares) -> Array:
    """The mixtures of the proxies, (P, J); a function of the recipe's seed and the limits.

    First the natural proportions, `repeats` times; then for each source a mixture that is mostly
    of it; then, one by one, the candidate farthest from all chosen so far (Kennard and Stone
    1969). Candidates are Dirichlet draws, sparse to even, brought within the limits.
    """
    limits = shares.limits
    natural = np.array(list(shares.natural.values()))
    count = len(natural)
    rng = np.random.default_rng(recipe.train.seed)
    evenness = np.repeat([0.3, 1.0, 3.0], -(-CANDIDATES // 3))[:CANDIDATES]
    drawn = np.array([rng.dirichlet(np.full(count, each)) for each in evenness])
    near = NEAR_VERTEX * np.eye(count) + (1.0 - NEAR_VERTEX) * natural
    candidates = limits.nearest(np.concatenate([near, drawn]))
    chosen = [natural]
    distance = np.linalg.norm(candidates - natural, axis=1)
    for step in range(recipe.proxies - recipe.repeats):
        # Limits may bring several near-vertices to one place: that is then tried once.
        vertex = step < count and distance[step] > 0.05
        pick = step if vertex else int(np.argmax(distance))
        chosen.append(candidates[pick])
        distance = np.minimum(distance, np.linalg.norm(candidates - candidates[pick], axis=1))
    return np.array([_rounded(mixture) for mixture in [natural] * (recipe.repeats - 1) + chosen])


def rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Shares of four decimals that add up to 1."""
    values = _rounded(np.array(list(weights.values())))
    return dict(zip(weights, map(float, values), strict=True))


def _rounded(mixture: Array) -> Array:
    scale = 10**PLACES
    whole = np.floor(mixture * scale + 1e-9)
    left = round(scale - whole.sum())
    whole[np.argsort(whole - mixture * scale, kind="stable")[:left]] += 1.0
    return np.asarray(whole / scale)


def _repetition(recipe: MixtureRecipe) -> float:
    if recipe.data_law is None:
        return recipe.repetition
    law: Any = load_law(recipe.data_law)
    if law.form != DATA_CONSTRAINED:
        raise RecipeError(
            f"a law of the form {law.form} says nothing of repetition",
            where=f"data_law {recipe.data_law}",
            fix=f"Give one of the form {DATA_CONSTRAINED}, or `repetition`",
        )
    value = float(law.parameters["R_D*"])
    if not law.supported or not math.isfinite(value):
        raise RecipeError(f"its law is {law.verdict}", where=f"data_law {recipe.data_law}")
    return value
