"""Uniform numbers: pure functions of what names them, and uniform."""

from __future__ import annotations

import numpy as np
from scipy import stats

from isoflop.data.chance import uniforms


def test_a_row_gets_the_same_numbers_whoever_asks_for_it_with_whom() -> None:
    whole = uniforms(3, "hide", np.arange(100), 20)
    assert np.array_equal(uniforms(3, "hide", np.array([41, 7]), 20), whole[[41, 7]])
    assert np.array_equal(uniforms(3, "hide", np.array([41]), 5), whole[[41], :5])


def test_seeds_purposes_rows_and_places_give_independent_uniform_numbers() -> None:
    rows = np.arange(400)
    samples = [
        uniforms(seed, purpose, rows, 50) for seed in (0, 1) for purpose in ("hide", "replace")
    ]
    for sample in samples:
        assert sample.min() >= 0
        assert sample.max() < 1
        assert stats.kstest(sample.ravel(), "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(sample[:-1].ravel(), sample[1:].ravel())[0, 1]) < 0.03
        assert abs(np.corrcoef(sample[:, :-1].ravel(), sample[:, 1:].ravel())[0, 1]) < 0.03
    flat = np.corrcoef([sample.ravel() for sample in samples])
    assert np.abs(flat - np.eye(4)).max() < 0.03
