"""The guard's verdicts on sequences of losses whose spikes are known."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from isoflop.training.guard import Guard, GuardState
from isoflop.training.guard_recipe import GuardConfig


def faults(losses: list[float], config: GuardConfig) -> dict[int, str]:
    guard = Guard(config)
    found = {i: guard.judge(loss, 1.0) for i, loss in enumerate(losses)}
    return {i: fault.reason for i, fault in found.items() if fault is not None}


def test_noise_of_thousands_of_steps_is_no_spike() -> None:
    draw = np.random.default_rng(0)
    falling = 3 + 5 / np.sqrt(1 + np.arange(5000)) + draw.standard_t(10, 5000) * 0.1
    assert faults(falling.tolist(), GuardConfig()) == {}


@pytest.mark.parametrize("size", [2.5, 10.0, 1e6])
def test_a_batch_of_garbage_is_a_spike_once_half_a_window_is_known(size: float) -> None:
    losses = (4.0 + np.random.default_rng(1).normal(0, 0.05, 200)).tolist()
    losses[20], losses[60] = 4.0 + size, 4.0 + size
    assert faults(losses, GuardConfig(window=100)) == {60: "spike"}
    assert faults(losses, GuardConfig(window=100, spike_z=0)) == {}


def test_a_lasting_rise_far_below_a_spike_is_found_within_eight_steps() -> None:
    noise = np.random.default_rng(2).normal(0, 0.3, 300)
    lifted = 4.0 + noise + np.where(np.arange(300) >= 200, 9 * 0.3, 0.0)
    found = faults(lifted.tolist(), GuardConfig())
    assert set(found.values()) == {"rise"}
    assert 204 <= min(found) < 208
    assert faults((4.0 + noise + 0.3 * (np.arange(300) >= 200)).tolist(), GuardConfig()) == {}


def test_a_rise_is_told_by_the_median_of_eight_losses() -> None:
    guard = Guard(GuardConfig(window=32, spike_z=6))
    for loss in (*[1.0, 2.0, 3.0, 4.0] * 4, *[9.0] * 4):
        assert guard.judge(loss, 1.0) is None
    fault = guard.judge(9.0, 1.0)
    assert fault is not None
    assert fault.reason == "rise"
    # Of the 20 losses before, the median is 3 and the median distance from it 1.
    assert (fault.median, fault.loss) == (3.0, 9.0)
    assert fault.z == pytest.approx((9 - 3) / 1.4826)
    assert "the median loss of 8 steps (9) lies 4 robust" in fault.what


def test_z_is_the_textbook_robust_score() -> None:
    guard = Guard(GuardConfig(window=8, spike_z=3))
    for loss in (1.0, 2.0, 3.0, 4.0):
        guard.judge(loss, 1.0)
    fault = guard.judge(12.0, 1.0)
    assert fault is not None
    assert (fault.median, fault.z) == (2.5, pytest.approx((12 - 2.5) / (1.4826 * 1.0)))
    assert "the loss (12) lies 6 robust standard deviations above the median (2.5)" in fault.what


@given(st.floats(), st.floats())
def test_only_finite_losses_and_gradients_are_remembered(loss: float, norm: float) -> None:
    guard = Guard(GuardConfig(spike_z=0))
    fault = guard.judge(loss, norm)
    fine = math.isfinite(loss) and math.isfinite(norm)
    assert (fault is None) == fine
    assert guard.state.losses == ((loss,) if fine else ())


def test_losses_learned_to_equality_do_not_make_the_next_batch_a_spike() -> None:
    assert faults([1.0] * 60 + [1.005] * 5, GuardConfig()) == {}


def test_a_fault_after_a_window_of_good_steps_starts_to_count_anew() -> None:
    config = GuardConfig(window=8, max_skips=0, max_rollbacks=1)
    guard = Guard(config, GuardState(rollbacks=0))
    guard.judge(math.nan, 1.0)
    assert guard.must_go_back
    assert guard.may_go_back
    guard.went_back(GuardState())
    assert not guard.may_go_back
    for _ in range(7):
        guard.judge(1.0, 1.0)
    assert not guard.may_go_back
    guard.judge(1.0, 1.0)
    assert guard.may_go_back


def test_losses_of_exactly_zero_are_no_fault_and_neither_is_the_first_that_is_not() -> None:
    guard = Guard(GuardConfig(window=10))
    assert [guard.judge(0.0, 1.0) for _ in range(10)] == [None] * 10
    assert guard.judge(0.1, 1.0) is None
