"""Counting embeddings or not: the effect is measured on the same runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import RunTable
from isoflop.laws.counting import compare_counts, isoflop_minima

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"


def grid(sizes: int = 12, horizons: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    params, tokens = np.meshgrid(np.geomspace(1e6, 1e9, sizes), np.geomspace(1e8, 1e11, horizons))
    params, tokens = params.ravel(), tokens.ravel()
    return params, tokens, 1.8 + 480.0 / params**0.35 + 2100.0 / tokens**0.37


def test_interpolated_isoflop_minima_find_the_planted_allocation() -> None:
    params, tokens, loss = grid()
    compute, best = isoflop_minima(params, params, tokens, loss)
    exponent = np.polyfit(np.log(compute), np.log(best), 1)[0]
    assert exponent == pytest.approx(0.37 / 0.72, abs=0.01)
    ratio = (0.35 * 480.0) / (0.37 * 2100.0)
    exact = ratio ** (1 / 0.72) * (compute / 6.0) ** (0.37 / 0.72)
    np.testing.assert_allclose(best, exact, rtol=0.15)


def test_leaving_embeddings_out_of_small_models_raises_the_exponent() -> None:
    total, tokens, loss = grid()
    without = total - 0.9 * 1e6 * (total / 1e6) ** (1 / 3)  # width grows as the cube root
    table = RunTable.from_arrays(without, tokens, loss, params_total=total)
    left_out, counted = compare_counts(table)
    assert counted.exponent == pytest.approx(0.37 / 0.72, abs=0.01)
    assert left_out.exponent > counted.exponent + 0.04
    assert left_out.method == counted.method == "isoflop"


def test_the_output_layer_in_the_tables_own_flops_counts_as_the_exact_optimum_says() -> None:
    params, tokens, loss = grid()
    head = 2e7 * (params / 1e6) ** (1 / 3)
    table = RunTable.from_arrays(params, tokens, loss, flops=6 * (params + head) * tokens)
    plain, own = compare_counts(table)
    assert own.count.endswith("C of the table")
    budgets = np.geomspace(*own.budgets, 25)
    fine = np.geomspace(1e5, 1e11, 20001)
    cost = 6 * (fine + 2e7 * (fine / 1e6) ** (1 / 3))
    best = [
        fine[np.argmin(480.0 / fine**0.35 + 2100.0 / (budget / cost) ** 0.37)] for budget in budgets
    ]
    exact = np.polyfit(np.log(budgets), np.log(best), 1)[0]
    assert own.exponent == pytest.approx(exact, abs=0.01)
    assert abs(exact - plain.exponent) > 0.02


def test_few_horizons_are_compared_by_the_fitted_surface() -> None:
    params, tokens, loss = grid(3, 4)
    table = RunTable.from_arrays(params, tokens, loss, params_total=1.5 * params)
    assert {effect.method for effect in compare_counts(table)} == {"surface"}


def test_a_table_with_one_count_is_refused() -> None:
    with pytest.raises(TableError, match="in one way only"):
        compare_counts(RunTable.from_arrays(*grid()))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared tables are not here")
def test_the_count_alone_moves_kaplans_exponent_towards_chinchillas() -> None:
    # Porian et al. 2024: the same runs without and with the last layer, published 0.834 and 0.716.
    with open(SHARED / "porian_isoflop.csv", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["D"] and row["loss"]]
    runs = {}
    for count in ("kaplan", "attention"):
        config = f"rw|base|long|kaplan|{count}|train"
        runs[count] = np.array(
            [[float(r[k]) for k in ("N", "D", "loss")] for r in rows if r["config"] == config]
        )
    small, large = (np.unique(runs[count][:, 0]) for count in ("kaplan", "attention"))
    rank = np.concatenate(
        [
            np.searchsorted(small, runs["kaplan"][:, 0]),
            np.searchsorted(large, runs["attention"][:, 0]),
        ]
    )
    both = np.concatenate([runs["kaplan"], runs["attention"]])
    table = RunTable.from_arrays(small[rank], both[:, 1], both[:, 2], params_total=large[rank])
    left_out, counted = compare_counts(table)
    assert left_out.exponent == pytest.approx(0.834, abs=0.02)
    assert counted.exponent == pytest.approx(0.716, abs=0.02)
