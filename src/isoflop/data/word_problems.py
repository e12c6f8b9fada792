"""Arithmetic in English and 中文, stories and drills, with worked answers; not for benchmarks.

The numbers are single digits on purpose: a model of a third of a million parameters learns these 81
facts in a few minutes, and of larger ones (products, sums beyond 9, two steps) none at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from isoflop.data.documents import Document

_NAMES_EN = (
    "Tom", "Anna", "Ben", "Lucy", "Sam", "Mia", "Jack", "Emma", "Leo", "Nina", "Max", "Ella",
    "Paul", "Rosa", "Ivan", "Kate",
)  # fmt: skip
_NAMES_ZH = (
    "小明", "小红", "小华", "小丽", "小刚", "小芳", "小军", "小梅", "小强", "小兰", "小龙", "小雨",
)  # fmt: skip
_THINGS_EN = (
    "apples", "books", "pencils", "coins", "cards", "eggs", "stamps", "marbles", "flowers",
    "cookies", "balls", "shells",
)  # fmt: skip
# Each noun with its measure word.
_THINGS_ZH = (
    "个苹果", "本书", "支铅笔", "枚硬币", "张卡片", "个鸡蛋", "张邮票", "颗弹珠", "朵花", "块饼干",
    "个球", "个贝壳",
)  # fmt: skip

# (question, worked step, answer)
_Problem = tuple[str, str, int]


DRILLS = 0.5
"""Share of the documents that are drills."""
DRILL_LENGTH = 6
"""Bare sums in a drill: documents of one would repeat and be dropped as duplicates."""


def word_problem(seed: int, index: int) -> tuple[str, str]:
    """The text and language of document `index`: a pure function of the two integers.

    Even indices are English, odd ones Chinese. A document is one story or a drill of several bare
    sums. The form can be prompted: everything up to "Answer:" or "答案：" is the question, what
    follows is the worked step and the answer.
    """
    # Seeding with a string hashes it with SHA-512, whatever the platform.
    draw = random.Random(f"{seed}/{index}")
    drill = draw.random() < DRILLS
    if index % 2 == 0:
        problems = _drill(draw, "What is {}?") if drill else [draw.choice(_KINDS_EN)(draw)]
        form, language = "Question: {}\nAnswer: {}. The answer is {}.\n", "en"
    else:
        problems = _drill(draw, "{}等于多少？") if drill else [draw.choice(_KINDS_ZH)(draw)]
        form, language = "问题：{}\n答案：{}。答案是{}。\n", "zh"
    return "".join(form.format(*problem) for problem in problems), language


def generate(source: str, seed: int, count: int) -> Iterator[Document]:
    """Problems 0 to `count` - 1 as documents of `source`, languages alternating."""
    for index in range(count):
        text, language = word_problem(seed, index)
        yield Document(id=f"{seed}/{index}", text=text, source=source, language=language)


# --- numbers -------------------------------------------------------------------------------


def _sum(draw: random.Random) -> tuple[int, int]:
    total = draw.randint(2, 9)
    first = draw.randint(1, total - 1)
    return first, total - first


def _difference(draw: random.Random) -> tuple[int, int]:
    whole = draw.randint(1, 9)
    return whole, draw.randint(1, whole)


def _drill(draw: random.Random, question: str) -> list[_Problem]:
    """Bare sums: the facts that the stories use, without a story."""
    problems = []
    for _ in range(DRILL_LENGTH):
        numbers, sign, result = draw.choice(_OPERATIONS)
        a, b = numbers(draw)
        sum_ = f"{a} {sign} {b}"
        problems.append((question.format(sum_), f"{sum_} = {result(a, b)}", result(a, b)))
    return problems


_OPERATIONS: tuple[
    tuple[Callable[[random.Random], tuple[int, int]], str, Callable[[int, int], int]], ...
] = ((_sum, "+", int.__add__), (_difference, "-", int.__sub__))


# --- English -------------------------------------------------------------------------------


def _add_en(draw: random.Random) -> _Problem:
    (a, b), name, things = _sum(draw), draw.choice(_NAMES_EN), draw.choice(_THINGS_EN)
    story = draw.choice(
        (
            f"{name} has {a} {things} and buys {b} more",
            f"{name} has {a} {things} and finds {b} more",
            f"{name} had {a} {things} and got {b} more",
        )
    )
    return f"{story}. How many {things} does {name} have now?", f"{a} + {b} = {a + b}", a + b


def _join_en(draw: random.Random) -> _Problem:
    (a, b), (one, two) = _sum(draw), draw.sample(_NAMES_EN, 2)
    things = draw.choice(_THINGS_EN)
    return (
        f"{one} has {a} {things} and {two} has {b}. How many {things} do they have together?",
        f"{a} + {b} = {a + b}",
        a + b,
    )


def _subtract_en(draw: random.Random) -> _Problem:
    (a, b), name, things = _difference(draw), draw.choice(_NAMES_EN), draw.choice(_THINGS_EN)
    verb = draw.choice(("gives away", "loses", "sells"))
    return (
        f"{name} has {a} {things} and {verb} {b}. How many {things} are left?",
        f"{a} - {b} = {a - b}",
        a - b,
    )


def _compare_en(draw: random.Random) -> _Problem:
    (a, b), (one, two) = _difference(draw), draw.sample(_NAMES_EN, 2)
    things = draw.choice(_THINGS_EN)
    return (
        f"{one} has {a} {things} and {two} has {b}. How many more {things} does {one} have?",
        f"{a} - {b} = {a - b}",
        a - b,
    )


# --- 中文 ----------------------------------------------------------------------------------


def _add_zh(draw: random.Random) -> _Problem:
    (a, b), name, things = _sum(draw), draw.choice(_NAMES_ZH), draw.choice(_THINGS_ZH)
    verb = draw.choice(("买了", "得到", "找到"))
    return (
        f"{name}有{a}{things}，又{verb}{b}{things[0]}。{name}现在有多少{things}？",
        f"{a} + {b} = {a + b}",
        a + b,
    )


def _join_zh(draw: random.Random) -> _Problem:
    (a, b), (one, two) = _sum(draw), draw.sample(_NAMES_ZH, 2)
    things = draw.choice(_THINGS_ZH)
    return (
        f"{one}有{a}{things}，{two}有{b}{things[0]}。他们一共有多少{things}？",
        f"{a} + {b} = {a + b}",
        a + b,
    )


def _subtract_zh(draw: random.Random) -> _Problem:
    (a, b), name, things = _difference(draw), draw.choice(_NAMES_ZH), draw.choice(_THINGS_ZH)
    verb = draw.choice(("送给朋友", "卖掉", "弄丢了"))
    return (
        f"{name}有{a}{things}，{verb}{b}{things[0]}。还剩多少{things}？",
        f"{a} - {b} = {a - b}",
        a - b,
    )


def _compare_zh(draw: random.Random) -> _Problem:
    (a, b), (one, two) = _difference(draw), draw.sample(_NAMES_ZH, 2)
    things = draw.choice(_THINGS_ZH)
    return (
        f"{one}有{a}{things}，{two}有{b}{things[0]}。{one}比{two}多多少{things}？",
        f"{a} - {b} = {a - b}",
        a - b,
    )


_KINDS_EN: tuple[Callable[[random.Random], _Problem], ...] = (
    _add_en, _join_en, _subtract_en, _compare_en,
)  # fmt: skip
_KINDS_ZH: tuple[Callable[[random.Random], _Problem], ...] = (
    _add_zh, _join_zh, _subtract_zh, _compare_zh,
)  # fmt: skip
