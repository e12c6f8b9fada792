"""Observational scaling on planted families."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.observational import components, observe

FAMILIES = {"a": (0.9, 0.0), "b": (1.2, -1.0), "c": (0.7, 0.6), "d": (1.0, -0.4)}
"""Slope and offset of a family's capability in decades of compute over 1e20."""


def world(rng: np.random.Generator, noise: float = 0.02):  # type: ignore[no-untyped-def]
    """(benchmarks, target, family, flops, truth at family and flops)"""
    family, flops, ability = [], [], []
    for name, (slope, offset) in FAMILIES.items():
        for decade in np.linspace(-1, 2, 7):
            family.append(name)
            flops.append(10 ** (20 + decade))
            ability.append(slope * decade + offset)
    s = np.array(ability)
    benchmarks = {
        f"b{i}": 0.5 + 0.1 * w * s + noise * rng.standard_normal(len(s))
        for i, w in enumerate((1.0, 0.8, 0.6, 1.2, 0.9))
    }

    def truth(name: str, compute: float) -> float:
        slope, offset = FAMILIES[name]
        return float(1 / (1 + np.exp(-(1.2 * (slope * np.log10(compute / 1e20) + offset) - 1))))

    target = np.array([truth(f, c) for f, c in zip(family, flops, strict=True)])
    target = np.clip(target + noise * rng.standard_normal(len(s)), 0, 1)
    return benchmarks, target, family, flops, truth


def test_one_ability_is_one_component() -> None:
    benchmarks, *_ = world(np.random.default_rng(0))
    table = np.stack(list(benchmarks.values()), axis=1)
    found = components(table, list(benchmarks), 2)
    assert found.explained[0] > 0.9
    assert np.linalg.norm(found.loadings, axis=0) == pytest.approx([1, 1])
    # Against scikit-free ground truth: eigenvectors of the correlation matrix.
    _, vectors = np.linalg.eigh(np.corrcoef(table.T))
    assert abs(vectors[:, -1] @ found.loadings[:, 0]) == pytest.approx(1, abs=1e-9)


def test_missing_scores_are_filled_from_the_rest() -> None:
    rng = np.random.default_rng(1)
    benchmarks, *_ = world(rng, noise=0.002)
    table = np.stack(list(benchmarks.values()), axis=1)
    whole = components(table, list(benchmarks), 1)
    holes = table.copy()
    holes[rng.random(table.shape) < 0.1] = np.nan
    found = components(holes, list(benchmarks), 1)
    assert abs(whole.loadings[:, 0] @ found.loadings[:, 0]) > 0.999


def test_large_models_of_a_family_are_foretold_from_small_ones() -> None:
    held, width = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        benchmarks, target, family, flops, truth = world(rng)
        small = np.array([f != "b" or c < 5e20 for f, c in zip(family, flops, strict=True)])
        kept = {name: np.where(small, values, np.nan)[small] for name, values in benchmarks.items()}
        found = observe(
            kept, target[small], np.array(family)[small].tolist(), np.array(flops)[small].tolist(),
            ask_family="b", ask_flops=1e22, count=1, seed=seed,
        )  # fmt: skip
        held.append(found.score.low <= truth("b", 1e22) <= found.score.high)
        width.append(found.score.high - found.score.low)
        assert found.beyond > 10
    assert np.mean(held) >= 0.8
    assert np.mean(width) < 0.35


def test_tables_that_say_too_little_are_refused() -> None:
    benchmarks, target, family, flops, _ = world(np.random.default_rng(0))
    with pytest.raises(TableError, match="0 models of the family e"):
        observe(benchmarks, target, family, flops, ask_family="e", ask_flops=1e22)
    with pytest.raises(TableError, match="tells no two models apart"):
        observe({**benchmarks, "x": [0.5] * 28}, target, family, flops, ask_family="a",
                ask_flops=1e22)  # fmt: skip
    with pytest.raises(TableError, match="components need 8 on 2"):
        components(np.zeros((3, 2)), ["a", "b"])
