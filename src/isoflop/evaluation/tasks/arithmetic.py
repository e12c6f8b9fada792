"""Sums and differences by how hard they are: digits of the numbers, carries or borrows.

Not for word problems. The answer counts if greedy decoding writes it and ends the line; its
log-probability is kept, for it grows where exact match still shows nothing.
"""

from __future__ import annotations

import math
import random

from isoflop.evaluation.likelihood import Subject, loglikelihood
from isoflop.evaluation.task import Outcome, Record, Settings

MAX_DIGITS = 4
ITEMS = 40
"""Of each sign and number of digits."""
SHOTS = 4


def arithmetic(subject: Subject, settings: Settings) -> Outcome:
    """Additions and subtractions of 1 to 4 digits after four examples of the same kind."""
    asked = []
    for sign in "+-":
        for digits in range(1, MAX_DIGITS + 1):
            for number in range(settings.limit or ITEMS):
                draw = random.Random(f"{settings.seed}/arithmetic/{sign}/{digits}/{number}")
                sums = [_numbers(draw, digits, sign) for _ in range(SHOTS + 1)]
                asked.append((sign, digits, number, sums))
    pairs = []
    for sign, _, _, sums in asked:
        lines = [f"{a} {sign} {b} = {_result(a, b, sign)}\n" for a, b in sums]
        question, answer = lines[-1].split(" =")
        pairs.append(("".join(lines[:-1]) + question + " =", answer))
    records = []
    for (sign, digits, number, sums), pair, each in zip(
        asked, pairs, loglikelihood(subject, pairs), strict=True
    ):
        moved = carries(*sums[-1], sign)
        word = "carries" if sign == "+" else "borrows"
        records.append(
            Record(
                f"{sign}/{digits}/{number}", float(each.greedy),
                groups=(f"{sign}, {digits} digits", f"{moved} {word}"),
                detail={
                    "context": pair[0], "gold": pair[1], "logprob": each.logprob,
                    "digits": digits, "carries": moved,
                },
            )
        )  # fmt: skip
    hoped = math.fsum(math.exp(r.detail["logprob"]) for r in records) / len(records)
    return Outcome("exact match", tuple(records), chance=0.0, extra={"expected_exact_match": hoped})


def carries(a: int, b: int, sign: str) -> int:
    """How many columns carry (or, in a difference a ≥ b, borrow) when done by hand."""
    count = held = 0
    while a or b:
        first, second = a % 10, b % 10 + held
        held = int(first + second > 9) if sign == "+" else int(first < second)
        count += held
        a, b = a // 10, b // 10
    return count


def _numbers(draw: random.Random, digits: int, sign: str) -> tuple[int, int]:
    low = 10 ** (digits - 1) if digits > 1 else 0
    a, b = draw.randint(low, 10**digits - 1), draw.randint(low, 10**digits - 1)
    return (max(a, b), min(a, b)) if sign == "-" else (a, b)


def _result(a: int, b: int, sign: str) -> int:
    return a + b if sign == "+" else a - b
