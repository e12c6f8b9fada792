"""The fan of a run directory: from its own records, to the end of its own schedule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.reporting.collect import collect
from isoflop.reporting.flight import flights
from isoflop.reporting.law_records import Fan
from isoflop.reporting.lines import read_metrics
from isoflop.reporting.page import build
from isoflop.reporting.records import Verdict

STEPS, BATCH = 1000, 512


def write(run: Path, until: float, *, start: int = 10, steps: int = STEPS) -> Path:
    run.mkdir(parents=True)
    recipe = {
        "optimizer": {
            "learning_rate": 1e-3, "schedule": "wsd", "warmup_tokens": 20 * BATCH,
            "decay_fraction": 0.2, "final_fraction": 0.0,
        },
        "train": {"tokens": steps * BATCH, "global_batch_tokens": BATCH},
    }  # fmt: skip
    (run / "config.json").write_text(json.dumps({"recipe": recipe}))
    rng = np.random.default_rng(0)
    rows = []
    for step in range(start, int(until * steps) + 1, 10):
        fallen = max(0.0, (step - 0.8 * steps) / (0.2 * steps))
        loss = (2.0 + 10 / step**0.5 - 0.1 * fallen) * np.exp(2e-3 * rng.standard_normal())
        row = {"step": step, "tokens": step * BATCH, "loss": loss, "lr": 1e-3, "flops": 1.0}
        rows.append(json.dumps({**row, "seconds": 0.1 * step}))
    (run / "metrics.jsonl").write_text("\n".join([*rows, ""]))
    return run


def fans(*runs: tuple[Path, bool], verdict: Verdict | None = None) -> tuple[Fan, ...]:
    losses = {path: read_metrics(path / "metrics.jsonl", print).losses for path, _ in runs}
    return flights(runs, losses, verdict, 0.9)


def test_a_run_in_flight_is_foretold_to_the_end_of_its_schedule(tmp_path: Path) -> None:
    (fan,) = fans((write(tmp_path / "r", 0.5), False))
    assert fan.end == STEPS
    assert fan.outcome is None
    _, _, low, high = fan.forecasts[-1]
    assert low < 2.0 + 10 / STEPS**0.5 - 0.1 < high


def test_an_ended_target_shows_its_outcome_beside_its_promise(tmp_path: Path) -> None:
    verdict = Verdict(2.2, 2.1, 2.3, 0.9, None)
    (fan,) = fans((write(tmp_path / "r", 1.0), True), verdict=verdict)
    assert fan.promise == (2.2, 2.1, 2.3)
    assert fan.outcome == pytest.approx(2.0 + 10 / STEPS**0.5 - 0.1, rel=0.01)


def test_of_many_runs_those_in_flight_come_first(tmp_path: Path) -> None:
    done = [(write(tmp_path / f"done{i}", 1.0, steps=2000), False) for i in range(3)]
    going = (write(tmp_path / "going", 0.6), False)
    found = fans(*done, going)
    assert [fan.run_id for fan in found] == ["going", "done0"]


def test_branches_and_foreign_runs_have_none(tmp_path: Path) -> None:
    branch = write(tmp_path / "branch", 1.0, start=800)
    foreign = write(tmp_path / "foreign", 1.0)
    (foreign / "config.json").write_text('{"lr": 1}')
    young = write(tmp_path / "young", 0.03)
    assert fans((branch, False), (foreign, False), (young, False)) == ()


def test_a_report_of_a_run_draws_its_fan(tmp_path: Path) -> None:
    page = build(collect([write(tmp_path / "r", 0.5)]))
    assert page.count('id="fan-wide-t"') == 1
    assert "foretold at 50%" in page
    assert len(page.encode()) < 100_000
