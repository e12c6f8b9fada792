"""Arithmetic word problems in English and 中文 with worked answers; not for benchmark problems.

The numbers are small on purpose: a model of half a million parameters can learn every step, so a
demo can show one that answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Literal

from isoflop.data.documents import Document, InputSplit
from isoflop.data.recipe import SourceConfig

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
_HOLDERS_EN = ("boxes", "bags", "baskets", "rows")
_HOLDERS_ZH = ("个盒子", "个袋子", "个篮子", "个抽屉")

# No generated problem is shorter, so this many always fill a cap given in bytes.
_MIN_PROBLEM_BYTES = 50
_PROBLEMS_PER_SPLIT = 20_000

# (question, worked step, answer)
_Problem = tuple[str, str, int]


def word_problem(seed: int, index: int) -> tuple[str, str]:
    """The text and language of problem `index`: a pure function of the two integers.

    Even indices are English, odd ones Chinese. The form can be prompted: everything up to
    "Answer:" or "答案：" is the question, what follows is the worked step and the answer.
    """
    # Seeding with a string hashes it with SHA-512, whatever the platform.
    draw = random.Random(f"{seed}/{index}")
    if index % 2 == 0:
        question, work, answer = worded(draw, "en")
        return f"Question: {question}\nAnswer: {work}. The answer is {answer}.\n", "en"
    question, work, answer = worded(draw, "zh")
    return f"问题：{question}\n答案：{work}。答案是{answer}。\n", "zh"


def worded(draw: random.Random, language: Literal["en", "zh"]) -> tuple[str, str, int]:
    """A problem in parts: the question, the worked step without a closing mark, the answer."""
    return draw.choice(_KINDS_ZH if language == "zh" else _KINDS_EN)(draw)


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """Ranges of problems, in order: as many as `documents` says, or enough for `max_bytes`."""
    count = source.documents
    if count is None:
        # Twice as many as the shortest would need: some are drawn twice and dropped.
        count = 2 * (source.max_bytes or 0) // _MIN_PROBLEM_BYTES + 1
    return [
        InputSplit(
            f"problems {start}", "", 2 * _MIN_PROBLEM_BYTES * (stop - start), start, stop, seed=seed
        )
        for start in range(0, count, _PROBLEMS_PER_SPLIT)
        for stop in [min(start + _PROBLEMS_PER_SPLIT, count)]
    ]


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document]:
    """The problems of a range as documents, languages alternating."""
    for index in range(split.start, split.stop or split.start):
        text, language = word_problem(split.seed, index)
        yield Document(f"{split.seed}/{index}", text, source.label, language)


# --- numbers -------------------------------------------------------------------------------


def _sum(draw: random.Random) -> tuple[int, int]:
    return draw.randint(1, 20), draw.randint(1, 20)


def _difference(draw: random.Random) -> tuple[int, int]:
    whole = draw.randint(2, 30)
    return whole, draw.randint(1, whole)


def _product(draw: random.Random) -> tuple[int, int]:
    return draw.randint(2, 6), draw.randint(2, 9)


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


def _multiply_en(draw: random.Random) -> _Problem:
    (a, b), things, holders = _product(draw), draw.choice(_THINGS_EN), draw.choice(_HOLDERS_EN)
    return (
        f"There are {a} {holders} with {b} {things} in each. How many {things} are there?",
        f"{a} × {b} = {a * b}",
        a * b,
    )


def _add_subtract_en(draw: random.Random) -> _Problem:
    (a, b), name, things = _sum(draw), draw.choice(_NAMES_EN), draw.choice(_THINGS_EN)
    c = draw.randint(1, min(a + b, 20))
    return (
        f"{name} has {a} {things}, buys {b} more and then gives away {c}. "
        f"How many {things} does {name} have now?",
        f"{a} + {b} = {a + b}, {a + b} - {c} = {a + b - c}",
        a + b - c,
    )


def _multiply_add_en(draw: random.Random) -> _Problem:
    (a, b), name, things = _product(draw), draw.choice(_NAMES_EN), draw.choice(_THINGS_EN)
    holders, c = draw.choice(_HOLDERS_EN), draw.randint(1, 9)
    return (
        f"{name} has {a} {holders} with {b} {things} in each, and {c} more. "
        f"How many {things} does {name} have?",
        f"{a} × {b} = {a * b}, {a * b} + {c} = {a * b + c}",
        a * b + c,
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


def _multiply_zh(draw: random.Random) -> _Problem:
    (a, b), things, holders = _product(draw), draw.choice(_THINGS_ZH), draw.choice(_HOLDERS_ZH)
    return (
        f"有{a}{holders}，每个里面有{b}{things}。一共有多少{things}？",
        f"{a} × {b} = {a * b}",
        a * b,
    )


def _add_subtract_zh(draw: random.Random) -> _Problem:
    (a, b), name, things = _sum(draw), draw.choice(_NAMES_ZH), draw.choice(_THINGS_ZH)
    c, unit = draw.randint(1, min(a + b, 20)), things[0]
    return (
        f"{name}有{a}{things}，又买了{b}{unit}，然后送给朋友{c}{unit}。{name}现在有多少{things}？",
        f"{a} + {b} = {a + b}，{a + b} - {c} = {a + b - c}",
        a + b - c,
    )


def _multiply_add_zh(draw: random.Random) -> _Problem:
    (a, b), name, things = _product(draw), draw.choice(_NAMES_ZH), draw.choice(_THINGS_ZH)
    holders, c = draw.choice(_HOLDERS_ZH), draw.randint(1, 9)
    return (
        f"{name}有{a}{holders}，每个里面有{b}{things}，另外还有{c}{things[0]}。"
        f"{name}一共有多少{things}？",
        f"{a} × {b} = {a * b}，{a * b} + {c} = {a * b + c}",
        a * b + c,
    )


_KINDS_EN: tuple[Callable[[random.Random], _Problem], ...] = (
    _add_en, _join_en, _subtract_en, _compare_en, _multiply_en, _add_subtract_en,
    _multiply_add_en,
)  # fmt: skip
_KINDS_ZH: tuple[Callable[[random.Random], _Problem], ...] = (
    _add_zh, _join_zh, _subtract_zh, _compare_zh, _multiply_zh, _add_subtract_zh,
    _multiply_add_zh,
)  # fmt: skip
