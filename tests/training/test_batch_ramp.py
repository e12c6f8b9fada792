"""A growing batch: whole units, every token once, the straight line it promises."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from isoflop.training.batch_ramp import BatchRamp

ramps = st.builds(
    lambda unit, initial, extra, tokens: BatchRamp(
        full=unit * (initial + extra), initial=unit * initial, ramp_tokens=tokens, unit=unit
    ),
    st.integers(1, 512), st.integers(1, 8), st.integers(0, 40), st.integers(1, 200_000),
)  # fmt: skip


@given(ramps)
def test_batches_are_whole_units_that_grow_to_the_full_batch(ramp: BatchRamp) -> None:
    sizes = [ramp.batch_tokens(step) for step in range(ramp.steps(ramp.ramp_tokens) + 3)]
    assert all(size % ramp.unit == 0 and size > 0 for size in sizes)
    assert sizes == sorted(sizes)
    assert sizes[0] == ramp.initial
    assert sizes[-1] == ramp.full


@given(ramps, st.integers(0, 400_000))
def test_steps_are_as_many_as_fit(ramp: BatchRamp, tokens: int) -> None:
    steps = ramp.steps(tokens)
    assert ramp.first_token(steps) <= tokens < ramp.first_token(steps + 1)


@given(st.integers(1, 64), st.integers(0, 1000))
def test_without_a_ramp_steps_are_equal(batch: int, step: int) -> None:
    ramp = BatchRamp(full=batch, initial=batch, ramp_tokens=0, unit=1)
    assert (ramp.first_token(step), ramp.batch_tokens(step)) == (batch * step, batch)


def test_half_way_the_batch_is_half_way() -> None:
    ramp = BatchRamp(full=1000, initial=200, ramp_tokens=10_000_000, unit=1)
    step = ramp.steps(5_000_000)
    assert abs(ramp.batch_tokens(step) - 600) <= 1
