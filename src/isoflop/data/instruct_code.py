"""Generated tasks of small Python functions with tests, in English and 中文; they are not run here.

What the tests expect is computed by this module's own functions, never by running the program, so
that a program and its tests are two witnesses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from isoflop.data.instruct_problems import Generator, Language, Problem, number

_NAMES = ("f", "g", "h", "solve", "work", "task")


@dataclass(frozen=True)
class _Step:
    """One thing a program does to a value."""

    english: str
    chinese: str
    code: str
    """Python, with {} in the place of the value."""
    value: Callable[[Any], Any]


def _on_numbers(k: int) -> tuple[_Step, ...]:
    return (
        _Step(f"adds {k} to it", f"加上{k}", f"{{}} + {k}", lambda x: x + k),
        _Step(f"subtracts {k} from it", f"减去{k}", f"{{}} - {k}", lambda x: x - k),
        _Step(f"multiplies it by {k}", f"乘以{k}", f"{{}} * {k}", lambda x: x * k),
        _Step("takes its absolute value", "取绝对值", "abs({})", abs),
        _Step("squares it", "平方", "{} ** 2", lambda x: x * x),
        _Step(
            f"takes the remainder after division by {k}", f"取除以{k}的余数", f"{{}} % {k}",
            lambda x: x - k * (x // k),
        ),
    )  # fmt: skip


_ON_LISTS = (
    _Step("returns their sum", "返回它们的和", "sum({})", sum),
    _Step("returns the largest", "返回其中最大的数", "max({})", lambda xs: sorted(xs)[-1]),
    _Step("returns the smallest", "返回其中最小的数", "min({})", lambda xs: sorted(xs)[0]),
    _Step("returns the reversed list", "返回倒序的列表", "{}[::-1]", lambda xs: [*reversed(xs)]),
    _Step("returns the sorted list", "返回从小到大排好的列表", "sorted({})", sorted),
    _Step(
        "returns the even ones", "返回其中的偶数", "[y for y in {} if y % 2 == 0]",
        lambda xs: [x for x in xs if not x & 1],
    ),
    _Step(
        "returns how many are negative", "返回负数的个数", "sum(y < 0 for y in {})",
        lambda xs: len([x for x in xs if x < 0]),
    ),
)  # fmt: skip


def on_number(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """A function of one number: an operation, or two in a row above difficulty 1."""
    steps = draw.sample(_on_numbers(number(draw, difficulty, 2)), 1 if difficulty == 1 else 2)
    name, code = draw.choice(_NAMES), "x"
    for step in steps:
        code = step.code.format(f"({code})" if " " in code and "({})" not in step.code else code)
    cases = []
    for given in draw.sample(range(-9, 30), 6):
        value = given
        for step in steps:
            value = step.value(value)
        cases.append((given, value))
    if language == "zh":
        work = "，再".join(step.chinese for step in steps)
        question = f"写一个Python函数{name}(x)：把整数x{work}，返回结果。"
    else:
        work = " and then ".join(step.english for step in steps)
        question = f"Write a Python function {name}(x) that takes a whole number, {work}."
    # Another value everywhere, whatever the operations are.
    wrong = f"({code}) + {draw.randint(1, 3)}"
    return _problem("code-number", name, language, question, (code, wrong), cases)


def on_list(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """A function of a list of whole numbers to which one more is put."""
    task, name, last = draw.choice(_ON_LISTS), draw.choice(_NAMES), number(draw, difficulty)
    lists = [draw.sample(range(-20, 30), 6) for _ in range(5)]
    cases = [(given, task.value([*given, last])) for given in lists]
    others = [
        step for step in _ON_LISTS
        if any(step.value([*given, last]) != value for given, value in cases)
    ]  # fmt: skip
    if language == "zh":
        question = f"写一个Python函数{name}(x)：在整数列表x末尾加上{last}，{task.chinese}。"
    else:
        question = (
            f"Write a Python function {name}(x) that takes a list of whole numbers, puts {last} "
            f"at its end and {task.english}."
        )
    codes = tuple(step.code.format(f"[*x, {last}]") for step in (task, draw.choice(others)))
    return _problem("code-list", name, language, question, (codes[0], codes[1]), cases)


def _problem(
    kind: str,
    name: str,
    language: Language,
    question: str,
    codes: tuple[str, str],
    cases: Sequence[tuple[object, object]],
) -> Problem:
    right, wrong = (f"def {name}(x):\n    return {code}" for code in codes)
    tests = "\n".join(f"assert {name}({given!r}) == {value!r}" for given, value in cases)
    return Problem(
        kind, f"{kind}/{codes[0]}", language, question, "", right, wrong, tests=tests
    )  # fmt: skip


CODE: dict[str, Generator] = {"code-number": on_number, "code-list": on_list}
"""Kind → its generator."""
