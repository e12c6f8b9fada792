"""Scoring forecasts on a table's own large runs."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws import RunTable, backtest
from isoflop.laws.backtest import compare

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 6.4e7, 7), np.geomspace(1e8, 6.4e9, 7)))
LOSS = 1.7 + 200 * N**-0.34 + 400 * D**-0.3


def test_the_runs_of_most_compute_are_held_out_and_scored() -> None:
    noise = 0.002 * np.random.default_rng(0).standard_normal(N.size)
    scored = backtest(RunTable.from_arrays(N, D, LOSS * np.exp(noise)), holdout=0.2, form="gamma")
    assert (scored.n_fit, scored.n_held_out) == (39, 10)
    assert min(p.flops for p in scored.points) >= np.sort(6 * N * D)[-10] * 0.999
    assert scored.reach > 5
    assert scored.median_error_percent < 0.6
    assert scored.coverage >= 0.7
    assert scored.coverage == np.mean([p.low <= p.loss <= p.high for p in scored.points])


def test_large_runs_of_another_recipe_are_missed_and_said_to_be() -> None:
    loss = np.where(np.argsort(np.argsort(N * D)) >= 39, LOSS * 1.1, LOSS)
    scored = backtest(RunTable.from_arrays(N, D, loss), holdout=0.2)
    assert scored.coverage < 0.2
    assert scored.bias_percent == pytest.approx(100 * (1 / 1.1 - 1), abs=1.0)


def test_an_impossible_holdout_is_refused() -> None:
    with pytest.raises(TableError, match="between 0 and 1"):
        backtest(RunTable.from_arrays(N, D, LOSS), holdout=20)


def test_a_cut_holds_out_every_run_above_it() -> None:
    scored = backtest(RunTable.from_arrays(N, D, LOSS), cut=10, bootstrap=100)
    assert min(p.flops for p in scored.points) > 6 * (N * D).max() / 10
    assert scored.n_fit + scored.n_held_out == N.size
    assert scored.reach >= 10
    with pytest.raises(TableError, match="cut must be above 1"):
        backtest(RunTable.from_arrays(N, D, LOSS), cut=0.5)


def test_the_interval_score_punishes_misses_twentyfold() -> None:
    noise = 0.002 * np.random.default_rng(0).standard_normal(N.size)
    scored = backtest(RunTable.from_arrays(N, D, LOSS * np.exp(noise)), bootstrap=100)
    expected = [
        (p.high - p.low + 20 * max(p.low - p.loss, p.loss - p.high, 0)) / p.loss
        for p in scored.points
    ]
    assert scored.interval_score_percent == pytest.approx(100 * np.mean(expected))


def test_forms_are_compared_at_every_cut_that_leaves_enough_runs() -> None:
    table = RunTable.from_arrays(N, D, LOSS)
    scored = compare(table, ("chinchilla", "auto"), (3, 10, 1e4), bootstrap=100)
    assert [s.form for s in scored] == ["chinchilla", "auto"] * 2
    assert scored[0].reach == scored[1].reach < scored[2].reach
    with pytest.raises(TableError, match="no cut leaves enough runs"):
        compare(table, ("chinchilla",), (1e5,))
