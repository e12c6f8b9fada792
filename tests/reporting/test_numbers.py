import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.reporting import numbers

THIN = numbers.THIN


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.count(317_000), f"317{THIN}k"),
        (numbers.count(6_210_000), f"6.21{THIN}M"),
        (numbers.count(7e9), f"7{THIN}B"),
        (numbers.count(999_999), f"1{THIN}M"),
        (numbers.count(42), "42"),
        (numbers.scientific(4.1e13), f"4.1{THIN}×{THIN}10¹³"),
        (numbers.scientific(3e-4), f"3.0{THIN}×{THIN}10⁻⁴"),
        (numbers.seconds(41.3), f"41{THIN}s"),
        (numbers.seconds(552), f"9{THIN}min 12{THIN}s"),
        (numbers.seconds(59.99), f"1{THIN}min 00{THIN}s"),
        (numbers.seconds(3599.7), f"1{THIN}h 00{THIN}min"),
        (numbers.seconds(7500), f"2{THIN}h 05{THIN}min"),
        (numbers.size(327_155_712), f"312{THIN}MiB"),
        (numbers.size(12), f"12{THIN}bytes"),
        (numbers.signed_percent(-0.614), f"−0.61{THIN}%"),
        (numbers.significant(float("nan")), "not finite"),
        (numbers.quantity(10, "minutes"), f"10{THIN}min 00{THIN}s"),
        (numbers.quantity(1.53217, "nats/token"), "1.532 nats/token"),
        (numbers.moment("2026-11-22T06:04:59Z"), "2026-11-22 06:04 UTC"),
        (numbers.moment("<b>"), "<b>"),
    ],
)
def test_a_number_is_written_the_way_it_is_read(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((1.532, 1.511, 1.553), "1.532 ± 0.021"),
        ((1.532, 1.5, 1.59), "1.53 (1.50 to 1.59)"),
        ((1.786, 1.7779, 1.7962), "1.786 (1.778 to 1.796)"),
        ((2.0, 2.0, 2.0), "2.000 ± 0.000"),
    ],
)
def test_an_interval_is_even_only_where_it_reads_so(
    interval: tuple[float, float, float], expected: str
) -> None:
    assert numbers.with_interval(*interval) == expected


@given(st.floats(1e-9, 1e9))
def test_rounding_moves_an_uncertainty_by_less_than_a_fifth(half_width: float) -> None:
    decimals = numbers.decimals_for(half_width)
    if decimals > 0:  # from 1 up, whole numbers are exact enough
        assert abs(round(half_width, decimals) - half_width) < half_width / 5


@given(st.floats(1e-3, 1e18))
def test_a_count_is_written_to_three_digits(value: float) -> None:
    written = numbers.count(value)
    factor = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(written[-1], 1.0)
    digits = written.rstrip("kMBT").replace(THIN, "").replace(",", "")
    assert math.isclose(float(digits) * factor, value, rel_tol=6e-3)
