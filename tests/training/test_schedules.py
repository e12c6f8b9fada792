"""Learning-rate schedules against their closed forms and their promises."""

from __future__ import annotations

import math
from typing import get_args

import hypothesis.strategies as st
import pytest
from hypothesis import given

from isoflop.training.schedules import Schedule, learning_rate_factor

SCHEDULES = get_args(Schedule)
WITH_AN_END = tuple(s for s in SCHEDULES if s != "inverse-sqrt")
"""Those that know the horizon, and take a run without warm-up."""


def factor(tokens: float, schedule: Schedule = "wsd", **changes: float) -> float:
    """The factor of a run of 1000 tokens, 100 of warm-up, 200 of decay to 0.1."""
    shape = {"total_tokens": 1000, "warmup_tokens": 100, "decay_fraction": 0.2,
             "final_fraction": 0.1}  # fmt: skip
    return learning_rate_factor(tokens, schedule=schedule, **{**shape, **changes})


shapes = st.fixed_dictionaries({
    "total_tokens": st.integers(10, 10**9),
    "warmup_tokens": st.integers(0, 10**6),
    "decay_fraction": st.floats(0, 1),
    "final_fraction": st.floats(0, 1),
})  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_is_a_straight_line_from_zero(schedule: Schedule) -> None:
    assert [factor(t, schedule) for t in (0, 25, 50)] == pytest.approx([0.0, 0.25, 0.5])


@pytest.mark.parametrize(
    ("schedule", "at", "expected"),
    [
        ("constant", 999, 1.0),
        ("linear", 100, 1.0),
        ("linear", 550, 0.1 + 0.9 * 0.5),
        ("linear", 1000, 0.1),
        ("cosine", 100, 1.0),
        ("cosine", 325, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2),
        ("cosine", 550, 0.1 + 0.9 * 0.5),
        ("cosine", 1000, 0.1),
        ("wsd", 100, 1.0),
        ("wsd", 800, 1.0),
        ("wsd", 850, 0.1 + 0.9 * 0.75),
        ("wsd", 1000, 0.1),
        ("wsd", 2000, 0.1),
        ("inverse-sqrt", 100, 1.0),
        ("inverse-sqrt", 400, 0.5),
        ("inverse-sqrt", 10_000, 0.1),
    ],
)
def test_closed_forms(schedule: Schedule, at: int, expected: float) -> None:
    assert factor(at, schedule) == pytest.approx(expected, abs=1e-12)


@given(st.sampled_from(WITH_AN_END), shapes, st.floats(0, 1.2))
def test_after_warmup_the_factor_lies_between_the_final_fraction_and_one(
    schedule: Schedule, shape: dict[str, float], share: float
) -> None:
    tokens = shape["warmup_tokens"] + share * shape["total_tokens"]
    found = factor(tokens, schedule, **shape)
    assert shape["final_fraction"] - 1e-12 <= found <= 1 + 1e-12


@given(st.sampled_from(WITH_AN_END), shapes, st.floats(0, 1))
def test_no_schedule_jumps(schedule: Schedule, shape: dict[str, float], share: float) -> None:
    total, warmup = shape["total_tokens"], shape["warmup_tokens"]
    length = {
        "linear": total - warmup,
        "cosine": total - warmup,
        "wsd": shape["decay_fraction"] * total,
        "constant": math.inf,
    }[schedule]
    step = 1e-6 * total
    # The steepest a factor may be: warm-up's slope, and a decay's (π/2 of it for the cosine).
    slope = (1 / warmup if warmup else 0.0) + math.pi / 2 / max(length, 1)
    at = share * total
    change = factor(at + step, schedule, **shape) - factor(at, schedule, **shape)
    assert abs(change) <= slope * step * (1 + 1e-6) + 1e-9


@given(shapes, st.integers(10, 10**9), st.floats(0, 1))
def test_before_its_decay_wsd_does_not_know_the_horizon(
    shape: dict[str, float], other_total: int, share: float
) -> None:
    stable = (1 - shape["decay_fraction"]) * min(shape["total_tokens"], other_total)
    tokens = int(share * stable)
    assert factor(tokens, **shape) == factor(tokens, **{**shape, "total_tokens": other_total})


@given(st.sampled_from(WITH_AN_END), shapes)
def test_without_warmup_a_run_starts_at_its_peak(
    schedule: Schedule, shape: dict[str, float]
) -> None:
    start = factor(0, schedule, **{**shape, "warmup_tokens": 0, "decay_fraction": 0.5})
    assert start == pytest.approx(1.0)
