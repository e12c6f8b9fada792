"""The terms of a schedule against sums over every single step."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.forms import Array
from isoflop.laws.schedule_terms import KAPPA, NODES, Kind, Schedule, terms
from isoflop.training.schedules import learning_rate_factor

THETA = np.array([np.log(2.7), -1.0, np.log(0.45), np.log(0.12), 4.0, np.log(1.5), 0.5])
PEAK, UNIT = 3e-4, 1e4


def jump() -> Schedule:
    return Schedule(np.array([0, 1000, 8000, 8001, 16_000]), PEAK * np.array([0, 1, 1, 0.3, 0.3]))


def named(kind: Kind) -> Schedule:
    return Schedule.named(kind, steps=20_000, peak=PEAK, warmup=1000, final_fraction=0.1)


def by_every_step(schedule: Schedule, at: Array, theta: Array) -> Array:
    """The formula of the module, with one term a step."""
    floor, a, alpha, b, c, beta = np.exp(theta[:KAPPA])
    fine = np.arange(0.0, schedule.end + 1)
    rate = np.interp(fine, schedule.step, schedule.rate) / PEAK
    speed = np.sqrt(rate)
    clock = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]))]) / UNIT
    fall = -np.diff(rate)
    fall[: int(np.argmax(rate))] = 0.0
    middle = 0.5 * (clock[1:] + clock[:-1])
    found = []
    for step in at.astype(int):
        lag = clock[step] - middle[:step]
        lost = np.sum(fall[:step] * (1.0 - (1.0 + c * lag) ** -beta))
        found.append(floor + a * clock[step] ** -alpha - b * lost)
    return np.array(found)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "wsd"])
def test_terms_of_a_named_schedule_equal_the_sum_over_every_step(kind: Kind) -> None:
    schedule = named(kind)
    at = np.linspace(1500, 20_000, 12).round()
    ours, _ = terms(schedule, at, peak=PEAK, unit=UNIT).evaluate(THETA)
    np.testing.assert_allclose(ours, by_every_step(schedule, at, THETA), rtol=2e-4)


def test_terms_of_a_jump_equal_the_sum_over_every_step() -> None:
    at = np.array([2000.0, 7000, 8100, 9000, 16_000])
    ours, _ = terms(jump(), at, peak=PEAK, unit=UNIT).evaluate(THETA)
    np.testing.assert_allclose(ours, by_every_step(jump(), at, THETA), rtol=1e-4)


@pytest.mark.parametrize("schedule", [named("cosine"), named("wsd"), jump()])
def test_derivatives_equal_differences(schedule: Schedule) -> None:
    ready = terms(schedule, np.linspace(1500, schedule.end, 20), peak=PEAK, unit=UNIT)
    _, jacobian = ready.evaluate(THETA)
    for column in range(len(THETA)):
        shift = np.zeros(len(THETA))
        shift[column] = 1e-5
        high, low = ready.evaluate(THETA + shift)[0], ready.evaluate(THETA - shift)[0]
        np.testing.assert_allclose(jacobian[:, column], (high - low) / 2e-5, atol=1e-8)


def test_a_schedule_of_every_step_is_thinned_without_moving_the_loss() -> None:
    coarse = jump()
    every = np.arange(0.0, 16_001)
    whole = Schedule(every, np.interp(every, coarse.step, coarse.rate))
    assert len(whole.thinned().step) <= 2 * NODES + 2
    at = np.array([2000.0, 8100, 16_000])
    loss = [terms(s, at, peak=PEAK, unit=UNIT).evaluate(THETA)[0] for s in (whole, coarse)]
    np.testing.assert_allclose(loss[0], loss[1], rtol=2e-4)


def test_a_warm_up_before_the_first_node_counts_as_one_that_is_given() -> None:
    whole = named("cosine")
    after = whole.step >= 1000
    rest = Schedule(whole.step[after], whole.rate[after], warmup=1000)
    at = np.array([3000.0, 20_000])
    loss = [terms(s, at, peak=PEAK, unit=UNIT).evaluate(THETA)[0] for s in (whole, rest)]
    np.testing.assert_allclose(loss[0], loss[1], rtol=1e-9)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "wsd"])
def test_named_schedules_are_those_that_training_runs(kind: Kind) -> None:
    schedule = Schedule.named(
        kind, steps=10_000, peak=2.0, warmup=500, final_fraction=0.1, decay_fraction=0.3
    )
    at = np.linspace(0, 9999, 57).round()
    run = [
        learning_rate_factor(
            int(t),
            total_tokens=10_000,
            warmup_tokens=500,
            schedule=kind,
            decay_fraction=0.3,
            final_fraction=0.1,
        )
        for t in at
    ]
    ours = np.interp(at, schedule.step, schedule.rate) / 2.0
    np.testing.assert_allclose(ours, run, atol=2e-4)


@pytest.mark.parametrize(
    ("step", "rate", "warmup", "says"),
    [
        ([0, 0, 5], [1, 1, 1], 0, "increase"),
        ([0, 5], [1, -1], 0, "not negative"),
        ([0, 5], [0, 0], 0, "all zero"),
        ([3], [1], 0, "two or more"),
        ([10, 50], [1, 1], 20, "warm-up of 20"),
    ],
)
def test_impossible_schedules_are_refused(
    step: list[float], rate: list[float], warmup: float, says: str
) -> None:
    with pytest.raises(TableError, match=says):
        Schedule(np.array(step), np.array(rate), warmup)


def test_steps_outside_the_schedule_are_refused() -> None:
    with pytest.raises(TableError, match="leave the schedule"):
        terms(jump(), [17_000.0], peak=PEAK, unit=UNIT)
