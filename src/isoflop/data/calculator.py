"""An exact calculator for texts: + − × ÷ and brackets over fractions; not a Python evaluator.

What a model or a user writes is read by a grammar of four operations, so that no expression can do
anything but arithmetic, nor cost more than its length allows.
"""

from __future__ import annotations

import re
from fractions import Fraction

from isoflop.core.errors import DataError

MAX_CHARACTERS, MAX_DEPTH = 200, 20
_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?)|([-+*/()−×÷]))")
_SAME = {"−": "-", "×": "*", "÷": "/"}


def calculate(expression: str) -> str:
    """The value of an expression as text: exact, see `number_text`.

    Raises:
        DataError: It is no expression, divides by zero, or is too long or too deep.
    """
    return number_text(evaluate(expression))


def evaluate(expression: str) -> Fraction:
    """The value of an expression: numbers with or without decimals, + - * / (− × ÷ too), brackets
    and signs; × and ÷ before + and −, else from left to right.

    Raises:
        DataError: As `calculate`.
    """
    if len(expression) > MAX_CHARACTERS:
        raise DataError(f"the expression has more than {MAX_CHARACTERS} characters")
    return _Reader(_tokens(expression)).whole()


def number_text(value: Fraction) -> str:
    """A number as people write it: whole, as a decimal if that ends, else as `3/7`."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        times = 0
        while rest % prime == 0:
            rest, times = rest // prime, times + 1
        places = max(places, times)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _tokens(expression: str) -> list[str]:
    tokens, at, text = [], 0, expression.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise DataError(f"`{text[at:].strip()[:20]}` is no number, sign or bracket")
        sign = found[2]
        tokens.append(found[1] if sign is None else _SAME.get(sign, sign))
        at = found.end()
    return tokens


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self._at < len(self._tokens):
            raise DataError(f"`{self._tokens[self._at]}` is out of place")
        return value

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _sum(self) -> Fraction:
        value = self._product()
        while self._next() in ("+", "-"):
            sign = self._take()
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while self._next() in ("*", "/"):
            sign = self._take()
            other = self._factor()
            if sign == "/" and not other:
                raise DataError("it divides by zero")
            value = value * other if sign == "*" else value / other
        return value

    def _factor(self) -> Fraction:
        negative = False
        while self._next() in ("+", "-"):
            negative ^= self._take() == "-"
        value = self._atom()
        return -value if negative else value

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "(":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise DataError(f"its brackets are more than {MAX_DEPTH} deep")
            value = self._sum()
            if self._take() != ")":
                raise DataError("a bracket is not closed")
            self._depth -= 1
            return value
        if not token or not token[0].isdigit():
            raise DataError(f"`{token}` stands where a number should" if token else "it ends early")
        return Fraction(token)

    def _take(self) -> str:
        token = self._next()
        self._at += 1
        return token
