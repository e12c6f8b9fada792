"""Calibration over tables: what it restores, and the file that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws import RunTable
from isoflop.laws.calibration import (
    Trial,
    calibrate,
    from_promises,
    interval_score,
    load_calibration,
    shipped,
    spread,
    trial,
)
from isoflop.laws.fit import fit


def trials(
    factor: float, drift: float, seed: int, tables: int = 24, points: int = 40
) -> list[Trial]:
    """Forecasts whose spread is too small by `factor` and lacks a drift."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(tables):
        distance = rng.uniform(0, np.log(30), points)
        draws, noise = np.full(points, 0.004), np.full(points, 0.003)
        honest = Trial(f"t{i}", f"s{i}", distance, draws, noise, distance)
        error = factor * spread(honest, drift) * rng.standard_normal(points)
        made.append(Trial(f"t{i}", f"s{i}", error, draws, noise, distance))
    return made


def test_planted_widening_and_drift_are_found() -> None:
    found = calibrate(trials(1.5, 0.01, seed=0), "today")
    assert found.drift == pytest.approx(0.01, rel=0.4)
    far = Trial("t", "s", *(np.array([v]) for v in (0.0, 0.004, 0.003, np.log(10))))
    truth = 1.5 * spread(far, 0.01)
    assert 0.9 < float(spread(far, found.drift, found.widen)[0] / truth[0]) < 1.25


def test_calibrated_intervals_hold_on_tables_that_were_left_out() -> None:
    seen = calibrate(trials(2.0, 0.006, seed=1), "today")
    held = [
        np.mean(np.abs(t.error) <= 1.645 * spread(t, seen.drift, seen.widen))
        for t in trials(2.0, 0.006, seed=2)
    ]
    assert 0.88 <= float(np.mean(held)) <= 0.95


def test_a_table_with_many_runs_counts_as_one_table() -> None:
    few = trials(1.0, 0.0, seed=3)
    crowd = trials(6.0, 0.0, seed=4, tables=1, points=4000)
    assert calibrate([*few, *crowd], "today").widen < 2.0


def test_the_interval_score_is_width_plus_forty_times_the_miss_over_two() -> None:
    # Gneiting and Raftery 2007, eq. 43 with alpha = 0.1, by hand.
    score = interval_score(np.array([0.0, 0.03, -0.05]), np.full(3, 0.02), 0.9)
    np.testing.assert_allclose(score, [0.04, 0.04 + 20 * 0.01, 0.04 + 20 * 0.03])


def test_the_shipped_calibration_names_its_tables() -> None:
    seen = shipped()
    assert len(seen.tables) >= 20
    assert len({t.split()[0] for t in seen.tables}) >= 6
    assert seen.points > 500
    assert 0.0 < seen.drift < 0.02
    assert 0.5 <= seen.widen < 4.0


def test_a_calibration_file_reads_back_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    made = calibrate(trials(1.5, 0.01, seed=0), "2026-01-01")
    made.save(tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json") == made
    (tmp_path / "c.json").write_text('{"drift": 0.1}')
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_calibration(tmp_path / "c.json")


def test_two_tables_are_too_few() -> None:
    with pytest.raises(TableError, match="2 tables are too few"):
        calibrate(trials(1.0, 0.0, seed=0, tables=2), "today")


def test_a_given_calibration_is_the_one_used_and_widens_with_distance() -> None:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e8, 1e10, 4)))
    table = RunTable.from_arrays(n, d, 1.7 + 300 * n**-0.35 + 500 * d**-0.35)
    wide = calibrate(trials(4.0, 0.02, seed=0), "today")
    ours, other = (fit(table, form="auto", bootstrap=100, calibration=c) for c in (None, wide))
    near, far = ([law.predict(1e8 * x, 1e10 * x) for law in (ours, other)] for x in (1.0, 5.0))
    widths = [[p.high - p.low for p in pair] for pair in (near, far)]
    assert widths[1][1] > widths[1][0]
    assert widths[1][1] - widths[0][1] > widths[1][0] - widths[0][0]
    assert len(trial(ours, table, "t", "s").error) == 16


def test_promises_that_held_too_seldom_widen_the_next_calibration() -> None:
    rng = np.random.default_rng(0)
    made = []
    for i in range(8):
        value = np.full(40, 3.0)
        outcome = value * np.exp(0.02 * rng.standard_normal(40))
        made.append(
            from_promises(f"t{i}", "ledger", value * 0.99, value * 1.01, outcome, np.ones(40))
        )
    # ln 1.01 is 1.645 standard deviations of 0.00605: the outcomes vary by 3.3 times as much.
    assert calibrate(made, "today").widen == pytest.approx(0.02 / 0.00605, rel=0.2)
