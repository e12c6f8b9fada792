"""Collapse on ladders with planted recipes, and the reader of ladder directories."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.collapse import LadderCurve, collapse, read_curves
from isoflop.laws.curve_fit import Curve
from isoflop.laws.fit import fit
from isoflop.laws.records import RunTable
from isoflop.laws.schedule_terms import Kind, Schedule, terms


def ladder(
    seed: int, factors: Sequence[float] = (1.0, 1.0, 1.0, 1.0), noise: float = 0.01
) -> list[LadderCurve]:
    """Sizes doubling from 10M at 10, 20 and 40 tokens per parameter; rates off by a factor each."""
    rng = np.random.default_rng(seed)
    return [
        run(1e7 * 2.0**i, ratio, factor, rng, noise)
        for i, factor in enumerate(factors)
        for ratio in (10.0, 20.0, 40.0)
    ]


def run(
    params: float,
    ratio: float,
    factor: float,
    rng: np.random.Generator,
    noise: float,
    kind: Kind = "wsd",
) -> LadderCurve:
    steps = ratio * params / 65_536
    base = Schedule.named(kind, steps=steps, peak=1.0, warmup=0.03 * steps)
    schedule = Schedule(base.step, base.rate * factor)
    drop = 0.1 * (params / 1e7) ** 0.05
    theta = np.log([1.8 + 90 * params**-0.35, 205 * 65_536**-0.28, 0.28, drop, 0.01, 1.0, 1.0])
    theta[-1] = 0.5
    step = np.linspace(0.03 * steps + 1, steps, 150)
    loss = terms(schedule, step, peak=1.0, unit=1.0).evaluate(theta)[0]
    loss = loss + drop * (factor - 1.0) + 0.012 * np.log(factor) ** 2
    shift = 2e-3 * rng.normal()
    seen = loss * np.exp(noise * rng.normal(size=150) + shift)
    name = f"{params:.0e}-{ratio:.0f}"
    curve = Curve(name, step, seen, schedule)
    return LadderCurve(name, params, ratio * params, float(loss[-1] * np.exp(shift)), curve)


def test_healthy_ladders_collapse() -> None:
    checks = [collapse(ladder(seed)) for seed in range(20)]
    assert sum(not c.collapses for c in checks) <= 1
    assert np.median([c.spread for c in checks]) < 0.005


def test_a_size_with_the_wrong_rate_departs_and_is_named() -> None:
    checks = [collapse(ladder(seed, (1.0, 1.0, 1.0, 3.0))) for seed in range(10)]
    assert sum(not c.collapses for c in checks) >= 9
    assert all(c.sizes[3].departs for c in checks if not c.collapses)


def test_the_final_losses_alone_do_not_show_what_the_curves_show() -> None:
    clean = 0
    for seed in range(3):
        runs = ladder(seed, (1.0, 1.0, 1.0, 3.0))
        columns = ([getattr(r, n) for r in runs] for n in ("params", "tokens", "loss"))
        table = RunTable.from_arrays(*columns)
        law = fit(table, form="gamma", bootstrap=100)
        off = [law.predict(r.params, r.tokens).loss / r.loss - 1 for r in runs]
        clean += law.supported and float(np.std(off)) < 0.01
        assert not collapse(runs).collapses
    assert clean == 3


def test_a_rate_that_drifts_with_size_shows_as_drift() -> None:
    right = [collapse(ladder(seed)).drift for seed in range(5)]
    wrong = [collapse(ladder(seed, (0.5, 1.0, 2.0, 4.0))) for seed in range(5)]
    assert min(c.drift for c in wrong) > 2 * float(np.median(right))
    assert all(c.drift_p_value < 0.01 for c in wrong)


def test_a_single_run_that_departs_is_named() -> None:
    runs = ladder(1)
    bad = run(4e7, 20.0, 4.0, np.random.default_rng(7), 0.01)
    runs[7] = replace(bad, run_id="the-one")
    check = collapse(runs)
    assert [r.run_id for r in check.runs if r.departs] == ["the-one"]
    assert "the-one" in check.verdict


def test_a_run_with_another_schedule_is_named() -> None:
    runs = ladder(2)
    runs[4] = replace(
        run(2e7, 20.0, 1.0, np.random.default_rng(7), 0.01, "cosine"), run_id="cosine"
    )
    check = collapse(runs)
    assert [r.run_id for r in check.runs if r.schedule_differs] == ["cosine"]
    assert not check.collapses


def test_public_curves_collapse_and_one_that_ran_another_schedule_than_it_says_does_not(
    public_curves: dict[str, dict[str, Curve]],
) -> None:
    # Three sizes under the two decays of the source, which are nearly alike.
    runs = [
        LadderCurve(f"{size}-{name}", float(size[:-1]), 1e9, 1.0, public_curves[size][name])
        for size in ("25M", "100M", "400M")
        for name in ("wsd_20000_24000", "wsdld_20000_24000")
    ]
    healthy = collapse(runs)
    assert [r.run_id for r in healthy.runs if r.departs] == []
    plan, held = runs[2].curve, public_curves["100M"]["constant_24000"]
    there = held.step <= plan.schedule.end
    wrong = Curve("held", held.step[there], held.loss[there], plan.schedule)
    swapped = collapse([*runs[:2], replace(runs[2], curve=wrong), *runs[3:]])
    assert min(swapped.runs, key=lambda r: r.p_value).run_id == runs[2].run_id
    assert swapped.runs[2].p_value < 0.01 < healthy.runs[2].p_value


def test_the_floor_of_a_law_sharpens_the_shapes() -> None:
    runs = ladder(3)
    assert collapse(runs, floor=1.5).spread > collapse(runs).spread
    with pytest.raises(TableError, match="under the floor"):
        collapse(runs, floor=3.0)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(TableError, match="3 curves cannot be judged"):
        collapse(ladder(0)[:3])


def written(root: Path) -> Path:
    """A ladder of one trunk and one branch, as `isoflop ladder` leaves it."""
    rows = []
    for tokens, steps in ((400, range(10, 110, 10)), (1000, range(10, 260, 10))):
        run_id = f"d32-l1-{tokens}"
        directory = root / "runs" / run_id
        directory.mkdir(parents=True)
        first = 80 if tokens == 400 else 0
        lines = [
            json.dumps({"step": s, "lr": 0.1, "loss": 5.0 - s / 100 - tokens / 1e6})
            for s in steps
            if s > first
        ]
        (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        rows.append({"run_id": run_id, "params": 50, "tokens": tokens, "loss": 3.0})
    with open(root / "runs.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ["run_id", "params", "tokens", "loss"])
        table.writeheader()
        table.writerows(rows)
    return root


def test_a_branch_begins_with_its_trunk(tmp_path: Path) -> None:
    branch, trunk = read_curves(written(tmp_path))
    assert branch.curve.step.tolist() == list(range(10, 110, 10))
    np.testing.assert_array_equal(branch.curve.loss[:8], trunk.curve.loss[:8])
    assert branch.curve.loss[8] != trunk.curve.loss[8]
    assert branch.curve.schedule.step[0] == 0.0


def test_damaged_ladders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no runs\.csv"):
        read_curves(tmp_path)
    root = written(tmp_path)
    metrics = root / "runs" / "d32-l1-400" / "metrics.jsonl"
    metrics.write_text('{"step": 1, "lr"\n')
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_curves(root)
    metrics.unlink()
    with pytest.raises(ArtifactError, match=r"no metrics\.jsonl"):
        read_curves(root)
