import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.reporting import scales
from isoflop.reporting.scales import Scale


def test_a_log_scale_puts_equal_factors_at_equal_distances() -> None:
    scale = Scale(1e10, 1e14, start=40, end=440, log=True)
    assert [scale(10.0**e) for e in (10, 11, 12, 13, 14)] == pytest.approx([40, 140, 240, 340, 440])


def test_a_linear_scale_may_run_upwards() -> None:
    scale = Scale(1.0, 3.0, start=300, end=20)
    assert (scale(1.0), scale(2.0), scale(3.0)) == pytest.approx((300, 160, 20))


def test_linear_ticks_are_round_and_inside() -> None:
    ticks = scales.linear_ticks(Scale(1.47, 3.02, 0, 400), 7)
    assert [t.label for t in ticks] == ["1.6", "1.8", "2.0", "2.2", "2.4", "2.6", "2.8", "3.0"]


def test_log_ticks_name_2_and_5_only_where_there_is_room() -> None:
    wide = scales.log_ticks(Scale(1e12, 1e13, 0, 400, log=True), scales.compute_label)
    assert [t.label for t in wide if t.label] == ["10¹²", "2·10¹²", "5·10¹²", "10¹³"]
    tight = scales.log_ticks(Scale(1e10, 1e14, 0, 260, log=True), scales.compute_label)
    assert [t.label for t in tight if t.label] == ["10¹⁰", "10¹¹", "10¹²", "10¹³", "10¹⁴"]
    tiny = scales.log_ticks(Scale(1e10, 1e14, 0, 120, log=True), scales.compute_label)
    assert [t.label for t in tiny if t.label] == ["10¹⁰", "10¹²", "10¹⁴"]


@given(st.floats(1e-6, 1e20), st.floats(1.01, 1e9), st.floats(100, 900))
def test_worded_log_ticks_never_crowd(low: float, span: float, width: float) -> None:
    scale = Scale(low, low * span, 0, width, log=True)
    places = [scale(t.value) for t in scales.log_ticks(scale, str, min_gap=46) if t.label]
    assert all(b - a >= 45.9 for a, b in itertools.pairwise(places))


@given(st.floats(0.5, 8), st.floats(1.02, 20))
def test_a_log_axis_of_losses_has_readable_ticks(low: float, span: float) -> None:
    scale = Scale(low, low * span, start=400, end=30, log=True)
    ticks = scales.value_ticks(scale, 6)
    assert len(ticks) >= 3
    assert all(scale.holds(t.value) for t in ticks)
    assert all(float(t.label) == pytest.approx(t.value) for t in ticks)


@given(
    st.lists(st.floats(-50, 350), min_size=1, max_size=12),
    st.floats(1, 20),
)
def test_spread_labels_are_apart_in_order_and_inside(places: list[float], gap: float) -> None:
    spread = scales.spread_labels(places, gap, 0, 300)
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [spread[i] for i in order]
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(moved))
    assert all(-1e-6 <= y <= 300 + 1e-6 for y in moved)


def test_labels_that_do_not_collide_stay() -> None:
    assert scales.spread_labels([200, 10, 100], 14, 0, 300) == pytest.approx([200, 10, 100])


def test_two_labels_at_one_place_part_evenly() -> None:
    assert scales.spread_labels([100, 100], 10, 0, 300) == pytest.approx([95, 105])


@pytest.mark.parametrize("values", [[], [2.0], [float("nan"), float("inf")], [-1.0]])
def test_an_extent_always_has_width(values: list[float]) -> None:
    for log in (False, True):
        low, high = scales.extent(values, log=log)
        assert low < high
        assert low > 0 or not log


def test_a_log_axis_of_many_decades_holds_nothing_below_its_low_end() -> None:
    scale = Scale(1e16, 1e26, 0, 400, log=True)
    assert not scale.holds(1e15)
    assert not scale.holds(0.0)
    assert scale.holds(1e16)
    assert scale.holds(1e26)
    assert scales.log_ticks(scale, str)[0].value == 1e16
