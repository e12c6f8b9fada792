"""Shares within limits: the projection against scipy, and limits that leave nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import rel_entr

from isoflop.core.errors import TableError
from isoflop.laws.simplex import Limits

NAMES = ("a", "b", "c", "d")


def random_limits(rng: np.random.Generator) -> Limits:
    return Limits.of(
        NAMES,
        least=dict(zip(NAMES, rng.uniform(0.0, 0.1, 4), strict=True)),
        most=dict(zip(NAMES, rng.uniform(0.3, 1.0, 4), strict=True)),
        together=(("a", "c"), float(rng.uniform(0.35, 1.0))),
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_nearest_mixture_is_the_one_of_least_relative_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = random_limits(rng)
    mixture = rng.dirichlet(np.full(4, 0.5))
    found = limits.nearest(mixture[None])[0]
    theirs = minimize(
        lambda x: float(rel_entr(x, mixture).sum()),
        found * 0.5 + 0.5 * limits.nearest(np.full((1, 4), 0.25))[0],
        bounds=list(zip(limits.lower + 1e-9, limits.upper, strict=True)),
        constraints=[
            {"type": "eq", "fun": lambda x: x.sum() - 1.0},
            {"type": "ineq", "fun": lambda x: limits.group_most - x[0] - x[2]},
        ],
        options={"ftol": 1e-12, "maxiter": 300},
    )
    assert float(rel_entr(found, mixture).sum()) <= theirs.fun + 1e-6
    assert found == pytest.approx(theirs.x, abs=2e-3)


def test_every_mixture_comes_within_the_limits_and_one_inside_stays() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        limits = random_limits(rng)
        found = limits.nearest(rng.dirichlet(np.full(4, 0.3), size=50))
        assert found.sum(axis=1) == pytest.approx(1.0)
        assert (found >= limits.lower - 1e-12).all()
        assert (found <= limits.upper + 1e-12).all()
        assert (found[:, [0, 2]].sum(axis=1) <= limits.group_most + 1e-9).all()
        assert limits.nearest(found) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"most": dict.fromkeys(NAMES, 0.2)}, "allow 80%"),
        ({"most": {"b": 0.2, "d": 0.2}, "together": (("a", "c"), 0.4)}, "allow 80%"),
        ({"least": {"a": 0.5}, "most": {"a": 0.4}}, "smallest shares leave no mixture"),
        ({"least": {"a": 0.3, "c": 0.3}, "together": (("a", "c"), 0.5)}, "smallest shares"),
    ],
)
def test_limits_that_leave_no_mixture_are_refused(limits: dict[str, object], says: str) -> None:
    with pytest.raises(TableError, match=says):
        Limits.of(NAMES, **limits)  # type: ignore[arg-type]
