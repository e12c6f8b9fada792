"""Generated problems with worked steps, in English and 中文: arithmetic, units and word problems.

Texts, lists and logic stand in `instruct_tasks.py`; rows are made in `instruct.py`. What a problem
asks is small on purpose: a model of a million parameters can learn every step. Difficulties 1 to 4
are numbers of one, of up to two, three and four digits, and longer lists and words.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from isoflop.data.word_problems import worded

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Problem:
    """A question whose answer is known."""

    kind: str
    """What sort of problem it is: `sum`, `units` …"""
    family: str
    """Problems with the same family ask the same thing in other words or another language: they
    belong on one side of a split."""
    language: Language
    question: str
    steps: str
    """The work, without a closing mark; "" where the answer is seen at once."""
    answer: str
    wrong: str
    """An answer that is near and not right."""
    expression: str = ""
    """What a calculator must be asked to get the answer; "" where it cannot."""
    tests: str = ""
    """Python that runs without an error if the answer, a program, is right; "" for all else."""

    def solution(self, answer: str | None = None) -> str:
        """The work and the answer (or another one in its place, in the work's last line too)."""
        said = self.answer if answer is None else answer
        steps = self.steps
        if answer is not None and steps.endswith(f"= {self.answer}"):
            steps = steps[: -len(self.answer)] + answer
        if self.tests:
            return said
        if self.language == "zh":
            return f"{steps}。答案是{said}。" if steps else f"答案是{said}。"
        return f"{steps}. The answer is {said}." if steps else f"The answer is {said}."


Generator = Callable[[random.Random, Language, int], Problem]
"""(source of chance, language, difficulty) → a problem."""


def number(draw: random.Random, difficulty: int, least: int = 0) -> int:
    """A number of at most `difficulty` digits, small ones as likely as large ones."""
    digits = draw.randint(1, difficulty)
    return max(least, draw.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def near(draw: random.Random, value: int) -> str:
    """A number that is not `value`: off by little or by a ten."""
    return str(value + draw.choice((-10, -2, -1, 1, 2, 10)))


# --- arithmetic ----------------------------------------------------------------------------

_ASK_EN = ("What is {}?", "Calculate {}.", "How much is {}?", "Compute {}.")
_ASK_ZH = ("{}等于多少？", "计算{}。", "{}是多少？", "请算一算{}。")


def _asked(
    draw: random.Random, language: Language, kind: str, family: str, expression: str, value: int,
    steps: str | None = None,
) -> Problem:  # fmt: skip
    form = draw.choice(_ASK_ZH if language == "zh" else _ASK_EN)
    work = f"{expression} = {value}" if steps is None else steps
    return Problem(
        kind, f"{kind}/{family}", language, form.format(expression), work, str(value),
        near(draw, value), expression,
    )  # fmt: skip


def _pair(a: int, b: int) -> str:
    return f"{min(a, b)},{max(a, b)}"


def add(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """a + b."""
    a, b = number(draw, difficulty), number(draw, difficulty)
    return _asked(draw, language, "sum", _pair(a, b), f"{a} + {b}", a + b)


def subtract(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """a - b, not negative at difficulty 1."""
    a, b = number(draw, difficulty), number(draw, difficulty)
    if difficulty == 1:
        a, b = max(a, b), min(a, b)
    return _asked(draw, language, "difference", f"{a},{b}", f"{a} - {b}", a - b)


def multiply(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """a × b; beyond single digits by the places of b."""
    return _product(draw, language, number(draw, difficulty), number(draw, difficulty))


def multiply_long(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """a × b, both of exactly so many digits as the difficulty says."""
    least = 10 ** (difficulty - 1)
    a, b = draw.randrange(least, 10 * least), draw.randrange(least, 10 * least)
    return replace(_product(draw, language, a, b), kind="long-product")


def _product(draw: random.Random, language: Language, a: int, b: int) -> Problem:
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(b)))][::-1]
    steps = f"{a} × {b} = {a * b}"
    if sum(part > 0 for part in parts) > 1:
        shown = [part for part in parts if part]
        comma = "，" if language == "zh" else ", "
        each = comma.join(f"{a} × {part} = {a * part}" for part in shown)
        steps = f"{each}{comma}{' + '.join(str(a * part) for part in shown)} = {a * b}"
    return _asked(draw, language, "product", _pair(a, b), f"{a} × {b}", a * b, steps)


def divide(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """a ÷ b without a rest."""
    b, value = number(draw, max(1, difficulty - 1), 1), number(draw, difficulty)
    return _asked(draw, language, "quotient", f"{b * value},{b}", f"{b * value} ÷ {b}", value)


def expression(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """Two operations, with brackets or the rule that products come first."""
    a, b, c = (number(draw, difficulty) for _ in range(3))
    comma = "，" if language == "zh" else ", "
    form = draw.randrange(3)
    if form == 0:
        text, value = f"{a} + {b} × {c}", a + b * c
        steps = f"{b} × {c} = {b * c}{comma}{a} + {b * c} = {value}"
    elif form == 1:
        text, value = f"({a} + {b}) × {c}", (a + b) * c
        steps = f"{a} + {b} = {a + b}{comma}{a + b} × {c} = {value}"
    else:
        text, value = f"{a} × {b} - {c}", a * b - c
        steps = f"{a} × {b} = {a * b}{comma}{a * b} - {c} = {value}"
    return _asked(draw, language, "expression", text.replace(" ", ""), text, value, steps)


# --- units ---------------------------------------------------------------------------------

_UNITS: tuple[tuple[str, str, str, str, int], ...] = (
    ("metres", "米", "centimetres", "厘米", 100),
    ("kilometres", "千米", "metres", "米", 1000),
    ("centimetres", "厘米", "millimetres", "毫米", 10),
    ("kilograms", "千克", "grams", "克", 1000),
    ("tonnes", "吨", "kilograms", "千克", 1000),
    ("litres", "升", "millilitres", "毫升", 1000),
    ("hours", "小时", "minutes", "分钟", 60),
    ("minutes", "分钟", "seconds", "秒", 60),
    ("days", "天", "hours", "小时", 24),
    ("weeks", "周", "days", "天", 7),
)
"""(larger unit, 大单位, smaller unit, 小单位, how many of the smaller make the larger)."""


def convert(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """A number of one unit in another, larger or smaller by a whole factor."""
    large_en, large_zh, small_en, small_zh, factor = draw.choice(_UNITS)
    many = number(draw, difficulty, 2)
    large, small = (large_zh, small_zh) if language == "zh" else (large_en, small_en)
    family = f"units/{large_en},{small_en},{many}"
    if draw.random() < 0.5:
        given, value, source, target = many, many * factor, large, small
        work = f"{many} × {factor}"
    else:
        given, value, source, target = many * factor, many, small, large
        work = f"{given} ÷ {factor}"
    question = (
        f"{given}{source}是多少{target}？"
        if language == "zh"
        else f"How many {target} are {given} {source}?"
    )
    return Problem(
        "units", family, language, question, f"{work} = {value}", str(value), near(draw, value),
        work,
    )  # fmt: skip


# --- word problems -------------------------------------------------------------------------


def word_problem(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """A story of `data/word_problems.py`; its numbers are small at every difficulty."""
    question, steps, value = worded(draw, language)
    family = "word/" + steps.replace("，", ", ").replace(" ", "")
    return Problem("word", family, language, question, steps, str(value), near(draw, value))


NUMERIC: dict[str, Generator] = {
    "sum": add,
    "difference": subtract,
    "product": multiply,
    "long-product": multiply_long,
    "quotient": divide,
    "expression": expression,
    "units": convert,
    "word": word_problem,
}
"""Kind → its generator."""
