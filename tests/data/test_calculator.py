from __future__ import annotations

import random
import re
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.data.calculator import MAX_CHARACTERS, calculate, evaluate, number_text


def expression(draw: random.Random, depth: int) -> str:
    """A random expression in the calculator's signs, blanks at random."""
    kind = draw.randrange(8) if depth else 0
    blank = draw.choice(("", " "))
    if kind < 2:
        digits = str(draw.randrange(10 ** draw.randint(1, 4)))
        return digits + draw.choice(("", "", f".{draw.randrange(1000):03d}"))
    if kind == 2:
        return f"({expression(draw, depth - 1)})"
    if kind == 3:
        return f"{draw.choice('-−')}{expression(draw, depth - 1)}"
    sign = draw.choice("+-*/−×÷")
    return f"{expression(draw, depth - 1)}{blank}{sign}{blank}{expression(draw, depth - 1)}"


def by_python(text: str) -> Fraction:
    """Python's own grammar, its numbers made fractions."""
    for ours, pythons in (("−", "-"), ("×", "*"), ("÷", "/")):
        text = text.replace(ours, pythons)
    # Only digits, signs and brackets got here.
    return Fraction(eval(re.sub(r"[\d.]+", r'F("\g<0>")', text), {"F": Fraction}))


def test_ten_thousand_random_expressions_have_the_value_that_fractions_give() -> None:
    draw = random.Random(0)
    done = by_zero = 0
    while done < 10_000:
        text = expression(draw, 3)
        try:
            expected = by_python(text)
        except ZeroDivisionError:
            by_zero += 1
            with pytest.raises(DataError, match="divides by zero"):
                evaluate(text)
            continue
        assert evaluate(text) == expected, text
        done += 1
    assert by_zero > 10


@given(st.fractions())
def test_a_number_as_text_is_the_number(value: Fraction) -> None:
    assert Fraction(number_text(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1234 × 5678", "7006652"), ("7 ÷ 2", "3.5"), ("1/3", "1/3"), ("-1/8", "-0.125"),
        ("0.1 + 0.2", "0.3"), ("2 - -3", "5"), ("10 - 4 - 3", "3"), ("8 / 4 / 2", "1"),
    ],
)  # fmt: skip
def test_results_are_exact_and_written_as_people_do(text: str, value: str) -> None:
    assert calculate(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends early"), ("1 +", "ends early"), ("(1", "not closed"), ("1)", "out of place"),
        ("2 3", "out of place"), ("*2", "stands where"), ("2 ** 3", "stands where"),
        ("__import__('os')", "no number"), ("1e9", "no number"), ("１+1", "no number|stands"),
        ("(" * 30 + "1" + ")" * 30, "deep"), ("1" * (MAX_CHARACTERS + 1), "characters"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calculate(text)


@given(st.text(max_size=60))
def test_no_text_at_all_does_anything_but_give_a_number_or_a_reason(text: str) -> None:
    with suppress(DataError):
        Fraction(calculate(text))
