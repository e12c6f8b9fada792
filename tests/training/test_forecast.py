"""A run watched in flight: it knows its end early, says what is lost, and stops if told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import RunError
from isoflop.laws import RunTable, fit
from isoflop.training.forecast import Forecaster
from isoflop.training.forecast_recipe import ForecastConfig
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe
from isoflop.training.stops import EarlyStop

STEPS = 4000


def rate(step: int) -> float:
    """Warm-up over 100 steps, straight down to 0 over the last 800."""
    return 1e-3 * min(1.0, step / 100, (STEPS - step) / 800)


def write(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def planted(run: Path, seen: int, noise: float = 0.002) -> Path:
    """The directory of a run that ends at 2.0: a power of the steps, a fall with the rate."""
    step = np.arange(10, STEPS + 1, 10)
    drop = 0.15 * (1 - np.minimum(1.0, (STEPS - step) / 800))
    loss = 2.05 + 6 * (step + 20.0) ** -0.5 - drop
    loss += 2.0 - loss[-1]
    loss *= np.exp(np.random.default_rng(0).normal(0, noise, len(step)))
    rows = [{"step": int(s), "loss": float(x)} for s, x in zip(step, loss, strict=True)]
    run.mkdir()
    write(run / "metrics.jsonl", rows[: seen // 10])
    return run


def forecaster(**changes: object) -> Forecaster:
    config = ForecastConfig(**{"target_loss": 2.1, **changes})  # type: ignore[arg-type]
    return Forecaster(config, params=10**6, tokens=10**7, steps=STEPS, learning_rate=rate)


@pytest.mark.parametrize("seen", [1000, 2000, 3000, 3900])
def test_the_end_of_a_planted_run_lies_in_the_interval(tmp_path: Path, seen: int) -> None:
    outlook = forecaster()(planted(tmp_path / "run", seen))
    assert outlook is not None
    assert outlook.row["own"]["low"] < 2.0 < outlook.row["own"]["high"]
    assert outlook.row["progress"] == pytest.approx(seen / STEPS, abs=0.01)
    assert outlook.reasons == ()


def test_evaluations_lift_the_forecast_to_the_held_out_text(tmp_path: Path) -> None:
    run = planted(tmp_path / "run", 2000)
    before = forecaster()(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    at = {row["step"]: row["loss"] for row in rows}
    write(run / "evals.jsonl", [{"step": s, "loss": 1.02 * at[s]} for s in (1000, 1500, 2000)])
    after = forecaster()(run)
    assert before is not None
    assert after is not None
    assert after.row["own"]["value"] == pytest.approx(1.02 * before.row["own"]["value"], rel=3e-3)


def test_a_target_out_of_reach_is_said_and_stops_only_if_asked(tmp_path: Path) -> None:
    log = planted(tmp_path / "run", 3600)
    said = forecaster(target_loss=1.5)(log)
    assert said is not None
    assert not said.stop
    assert "the target cannot be reached any more" in said.reasons[0]
    stopped = forecaster(target_loss=1.5, stop_when_lost=True)(log)
    assert stopped is not None
    assert stopped.stop


def test_steps_that_bring_too_little_are_said(tmp_path: Path) -> None:
    log = planted(tmp_path / "run", 3000)
    outlook = forecaster(least_gain=0.01, stop_when_idle=True)(log)
    assert outlook is not None
    assert outlook.stop
    assert "each further per cent of the run brings" in outlook.reasons[0]
    assert forecaster(least_gain=1e-6)(log).reasons == ()  # type: ignore[union-attr]


def test_a_promise_of_a_law_narrows_the_forecast(tmp_path: Path) -> None:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e5, 1e6, 4), np.geomspace(1e6, 1e7, 4)))
    loss = 1.0 + 20 * n**-0.34 + 50 * d**-0.3
    fit(RunTable.from_arrays(n, d, loss), bootstrap=200).save(tmp_path / "law.json")
    log = planted(tmp_path / "run", 1000)
    alone, both = forecaster()(log), forecaster(law=tmp_path / "law.json")(log)
    assert alone is not None
    assert both is not None
    width = [o.row["final"]["high"] - o.row["final"]["low"] for o in (alone, both)]
    assert width[1] < width[0]
    assert both.row["own"] == alone.row["own"]


def test_a_law_that_is_no_surface_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    c = np.geomspace(1e15, 1e18, 8)
    table = RunTable.from_arrays(c**0.5, c**0.5 / 6, 1.5 + 100 * c**-0.15)
    fit(table, "kaplan-n", bootstrap=100).save(path)
    with pytest.raises(RunError, match="does not foretell a loss from size and tokens"):
        forecaster(law=path)


def test_nothing_is_said_before_there_is_something_to_say(tmp_path: Path) -> None:
    assert forecaster()(planted(tmp_path / "run", 30)) is None


@pytest.mark.usefixtures("calibrated")
def test_a_run_without_hope_stops_with_a_checkpoint_and_goes_on_when_told(
    train_recipe: TrainRecipe, content_of: Callable[[Path], dict[str, object]], tmp_path: Path
) -> None:
    def at(**changes: object) -> TrainRecipe:
        return replace(train_recipe, forecast=ForecastConfig(**changes))  # type: ignore[arg-type]

    out = tmp_path / "run"
    with pytest.raises(EarlyStop, match="the target cannot be reached"):
        train(at(target_loss=0.01, stop_when_lost=True), out)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "stopped early"
    assert (out / "checkpoints" / f"step_{events[-1]['step']:08d}").is_dir()
    watched = train(at(target_loss=0.01), out)
    forecasts = [json.loads(x) for x in (out / "forecasts.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in forecasts]
    assert steps == sorted(set(steps)), "each moment once, over both sessions"
    unwatched = train(train_recipe, tmp_path / "other")
    assert watched.loss == unwatched.loss
