"""Which runs to make next (the criterion itself: test_design)."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.advice import advise
from isoflop.laws.records import RunTable


def _table(sizes: int = 4, seed: int = 0) -> RunTable:
    grid = np.meshgrid(np.geomspace(1e7, 2e8, sizes), np.geomspace(1e9, 2e10, 4))
    n, d = (axis.ravel() for axis in grid)
    loss = (1.7 + 400 * n**-0.34 + 410 * d**-0.28) * np.exp(
        0.002 * np.random.default_rng(seed).standard_normal(n.size)
    )
    return RunTable.from_arrays(n, d, loss)


def test_the_proposed_run_is_affordable_and_near_the_largest() -> None:
    best = advise(_table()).runs[0]
    largest = 6 * 2e8 * 2e10
    assert 0.1 * largest < best.flops <= 1.001 * largest
    assert 0.0 < best.gain <= 1.0


def test_gains_of_later_runs_are_what_the_earlier_ones_leave() -> None:
    runs = advise(_table(), count=6).runs
    assert len({(run.params, run.tokens) for run in runs}) == 6
    assert sum(run.gain for run in runs) <= 1.0 + 1e-9


def test_a_goal_of_another_shape_changes_the_advice() -> None:
    wide = advise(_table(), goal=(2e10, 2e10)).runs[0]
    long = advise(_table(), goal=(2e8, 2e12)).runs[0]
    assert wide.params / wide.tokens > long.params / long.tokens


def test_a_table_short_of_sizes_keeps_its_verdict_in_the_advice() -> None:
    advice = advise(_table(sizes=2), count=3)
    assert advice.verdict.startswith("unsupported: 2 sizes")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"flops": 1.0}, "no run of the table's sizes"),
        ({"flops": -1.0}, "flops must be positive"),
        ({"goal": (1e9, 0.0)}, "tokens must be positive"),
        ({"count": 0}, "0 runs are none"),
    ],
)
def test_impossible_requests_are_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        advise(_table(), **asked)  # type: ignore[arg-type]
