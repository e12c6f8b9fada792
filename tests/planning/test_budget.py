"""A budget keeps its promises by construction: time, FLOPs of the rungs, whole batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from isoflop.core.errors import RecipeError
from isoflop.models.accounting import flops_per_token
from isoflop.planning import budget as module
from isoflop.planning.budget import (
    MIN_STEPS,
    MOST_TOKENS_PER_PARAMETER,
    RUN_OVERHEAD_SECONDS,
    TOKENS_PER_PARAMETER,
    WORKER_START_SECONDS,
    Speeds,
    n_layers,
    plan_budget,
    rungs_for,
)
from isoflop.planning.recipe import LadderRecipe, RungConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.probe import Probe
from isoflop.training.recipe import DataConfig, TrainConfig

BATCH, VOCAB_SIZE = 1024, 1024
TRAIN = TrainConfig(global_batch_tokens=BATCH, micro_batch_tokens=BATCH, evaluations=1)
BASE = LadderRecipe(
    data=DataConfig(Path("shards")), rungs=(RungConfig(32, 3, (1 << 20,)),),
    optimizer=OptimizerConfig(warmup_tokens=50 * BATCH), train=TRAIN, processes=2,
)  # fmt: skip


def training_flops(width: int, depth: int) -> float:
    """FLOPs per token, by accounting."""
    model = replace(BASE.model, d_model=width, n_layers=depth)
    return flops_per_token(model.decoder_config(VOCAB_SIZE, TRAIN.seq_len), TRAIN.seq_len).training


@given(st.sampled_from([128, 256, 384]), st.integers(2_000, 400_000))
def test_no_rung_costs_more_than_an_eighth_of_the_target(width: int, batches: int) -> None:
    tokens = batches * BATCH
    target = tokens * training_flops(width, n_layers(width))
    rungs = rungs_for(BASE, width, tokens, VOCAB_SIZE)
    assert [rung.d_model for rung in rungs] == [width // 4, width // 2, width * 3 // 4]
    for rung in rungs:
        assert rung.n_layers == n_layers(width)
        assert rung.d_model % 32 == 0
        assert len(rung.tokens) >= 3
        for horizon in rung.tokens:
            assert horizon % BATCH == 0
            assert horizon <= tokens
            cost = horizon * training_flops(rung.d_model, rung.n_layers)
            assert cost <= target / 8
    assert len({h for rung in rungs for h in rung.tokens}) > 4, "spread over horizons too"


# --- predicted seconds ---------------------------------------------------------------------


def probe_of(step: float, evaluation: float = 0.0) -> Probe:
    return Probe(seconds_per_step=step, evaluation_seconds=evaluation, peak_memory_bytes=10**9)


def test_predicted_ladder_seconds_are_those_of_a_schedule_played_by_hand() -> None:
    rungs = (
        RungConfig(32, 1, (100 * BATCH, 50 * BATCH, 200 * BATCH)),
        RungConfig(64, 1, (100 * BATCH, 400 * BATCH)),
    )
    ladder = replace(BASE, rungs=rungs, processes=2)
    probes = {32: probe_of(0.01, 0.5), 64: probe_of(0.05, 1.0)}
    o, start = RUN_OVERHEAD_SECONDS, WORKER_START_SECONDS
    trunk64 = 400 * 0.05 + 1.0 + o  # 22.5: the longer starts first, in lane 1
    trunk32 = 200 * 0.01 + 0.5 + o  # 4.0: in lane 2, then its branches
    branch100, branch50 = 20 * 0.01 + 0.5 + o, 10 * 0.01 + 0.5 + o
    branch64 = 20 * 0.05 + 1.0 + o
    lane1 = trunk64
    lane2 = trunk32 + branch100 + branch50
    assert lane2 < lane1, "so the last branch follows its trunk"
    expected = start + lane1 + branch64
    assert module._ladder_seconds(ladder, probes) == pytest.approx(expected)
    # On one lane everything follows everything.
    alone = start + trunk64 + trunk32 + branch100 + branch50 + branch64
    assert module._ladder_seconds(replace(ladder, processes=1), probes) == pytest.approx(alone)


# --- the whole plan ------------------------------------------------------------------------

FLOPS_PER_SECOND = 30e9


def measure(base: object, width: int, *rest: object) -> Speeds:
    """Speeds of a machine whose steps take what their FLOPs take."""
    seconds = {
        w: BATCH * training_flops(w, n_layers(width)) / FLOPS_PER_SECOND
        for w in (width // 4, width // 2, width * 3 // 4, width)
    }
    rungs = {w: probe_of(s, 0.3) for w, s in seconds.items() if w != width}
    return Speeds(rungs, probe_of(seconds[width] / 1.7, 0.3))


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_measure", measure)


def plan(seconds: float, max_tokens: int = 1 << 40) -> module.Budget:
    return plan_budget(
        BASE, replace(TRAIN, evaluations=5), seconds, VOCAB_SIZE, max_tokens, Path("demo")
    )


@pytest.mark.parametrize("seconds", [150, 500, 3000, 20_000])
def test_the_plan_uses_the_time_it_is_given_and_not_more(seconds: float) -> None:
    found = plan(seconds)
    used = found.ladder_seconds + found.target_seconds
    longest = MOST_TOKENS_PER_PARAMETER * found.target_params
    at_most = found.target.train.tokens > longest - BATCH
    assert 0.95 * seconds < used <= seconds or (used <= seconds and at_most)
    assert found.target.train.tokens <= longest
    shortest = min(min(rung.tokens) for rung in found.ladder.rungs)
    assert shortest >= MIN_STEPS * BATCH
    width = found.target.model.d_model
    assert found.target.model.n_layers == n_layers(width)
    flops = found.target.train.tokens * training_flops(width, n_layers(width))
    assert found.target_flops == pytest.approx(flops)
    for rung in found.ladder.rungs:
        largest = max(rung.tokens) * training_flops(rung.d_model, rung.n_layers)
        assert largest <= found.target_flops / 8


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(150, 20_000))
def test_more_time_never_buys_a_cheaper_target(seconds: float) -> None:
    assert plan(1.3 * seconds).target_flops >= 0.99 * plan(seconds).target_flops


def test_a_wider_target_comes_only_with_tokens_enough_for_it() -> None:
    short, long = plan(500), plan(20_000)
    assert short.target.model.d_model < long.target.model.d_model
    for found in (short, long):
        if found.target.model.d_model > module.WIDTH_UNIT:
            assert found.target.train.tokens >= 0.8 * TOKENS_PER_PARAMETER * found.target_params


def test_the_target_never_sees_a_token_twice() -> None:
    found = plan(20_000, max_tokens=3_000_000)
    assert found.target.train.tokens <= 3_000_000
    assert max(max(rung.tokens) for rung in found.ladder.rungs) <= 3_000_000


def test_the_target_is_one_more_rung_by_the_ladders_own_rules() -> None:
    found = plan(500)
    width = found.target.model.d_model
    as_rung = found.ladder.run_recipe(
        RungConfig(width, n_layers(width), (found.target.train.tokens,)), found.target.train.tokens
    )
    assert found.target.model == as_rung.model
    assert found.target.optimizer == as_rung.optimizer
    assert found.target.train.evaluations == 5


def test_too_little_time_is_an_error_with_a_way_out() -> None:
    with pytest.raises(RecipeError, match=r"0\.3 minutes are too few") as caught:
        plan(20)
    assert "Give it more time" in str(caught.value)
