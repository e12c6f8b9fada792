"""Generated tasks on texts and lists and small logic, in English and 中文; numbers have another
module (`instruct_problems.py`)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from isoflop.data.instruct_problems import Generator, Language, Problem, near, number

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CHARACTERS = "天地人水火山石田土木日月星云雨风花草鱼鸟马牛羊门口手足目耳心"
_NAMES_EN = ("Anna", "Ben", "Cara", "Dan", "Eva", "Finn", "Gus", "Hana")
_NAMES_ZH = ("小安", "小本", "小春", "小丹", "小娥", "小芬", "小谷", "小海")
_ORDERS = (("taller", "tallest", "高"), ("older", "oldest", "大"), ("faster", "fastest", "快"))
"""(comparative, superlative, Chinese adjective)."""


def _word(draw: random.Random, language: Language, difficulty: int) -> str:
    """A made-up word of letters, or a row of characters."""
    length = draw.randint(2 + difficulty, 2 + 2 * difficulty)
    return "".join(draw.choices(_CHARACTERS if language == "zh" else _LETTERS, k=length))


def _other(draw: random.Random, options: Sequence[str], right: str) -> str:
    return draw.choice([option for option in options if option != right])


# --- texts ---------------------------------------------------------------------------------


def reverse(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """A word backwards."""
    word = _word(draw, language, difficulty)
    if word == word[::-1]:
        return reverse(draw, language, difficulty)
    comma = "，" if language == "zh" else ", "
    question = (
        f"把“{word}”倒过来写。" if language == "zh" else f'Write the word "{word}" backwards.'
    )
    return Problem(
        "reverse", f"reverse/{word}", language, question, comma.join(word[::-1]), word[::-1], word
    )


def count_letter(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """How often one letter stands in a word."""
    word = _word(draw, language, difficulty)
    letter = draw.choice(word)
    word = "".join(letter if draw.random() < 0.3 else other for other in word)
    value = word.count(letter)
    if not value:
        return count_letter(draw, language, difficulty)
    question = (
        f"“{word}”里有几个“{letter}”？"
        if language == "zh"
        else f'How many times does "{letter}" occur in "{word}"?'
    )
    comma = "，" if language == "zh" else ", "
    seen = 0
    steps = []
    for character in word:
        seen += character == letter
        steps.append(f"{character} {seen}")
    return Problem(
        "count-letter", f"count-letter/{word},{letter}", language, question, comma.join(steps),
        str(value), near(draw, value),
    )  # fmt: skip


def length_of(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """How long a word is."""
    word = _word(draw, language, difficulty)
    comma = "，" if language == "zh" else ", "
    steps = comma.join(f"{character} {place}" for place, character in enumerate(word, 1))
    question = (
        f"“{word}”有几个字？" if language == "zh" else f'How many letters has the word "{word}"?'
    )
    return Problem(
        "length", f"length/{word}", language, question, steps, str(len(word)), near(draw, len(word))
    )


# --- lists ---------------------------------------------------------------------------------


def _numbers(draw: random.Random, difficulty: int) -> list[int]:
    found = [number(draw, difficulty) for _ in range(draw.randint(2 + difficulty, 3 + difficulty))]
    return found if len(set(found)) == len(found) else _numbers(draw, difficulty)


def _listed(values: Sequence[int], language: Language) -> str:
    return ("、" if language == "zh" else ", ").join(map(str, values))


def _on_list(
    kind: str, ask_en: str, ask_zh: str, solve: Callable[[list[int]], list[int]]
) -> Generator:
    def made(draw: random.Random, language: Language, difficulty: int) -> Problem:
        values = _numbers(draw, difficulty)
        right = solve(values)
        if right == values:
            return made(draw, language, difficulty)
        wrong = draw.sample(right, len(right)) if len(right) > 1 else [draw.choice(values)]
        while wrong == right:
            wrong = draw.sample(right, len(right)) if len(right) > 1 else [draw.choice(values)]
        question = (ask_zh if language == "zh" else ask_en).format(_listed(values, language))
        family = f"{kind}/{','.join(map(str, values))}"
        answer = _listed(right, language)
        return Problem(kind, family, language, question, "", answer, _listed(wrong, language))

    return made


def list_sum(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """The sum of a list, by partial sums."""
    values = _numbers(draw, difficulty)
    steps, total = [], values[0]
    for value in values[1:]:
        steps.append(f"{total} + {value} = {total + value}")
        total += value
    listed = _listed(values, language)
    question = f"{listed}的和是多少？" if language == "zh" else f"What is the sum of {listed}?"
    work = ("，" if language == "zh" else ", ").join(steps)
    family = f"list-sum/{','.join(map(str, sorted(values)))}"
    return Problem("list-sum", family, language, question, work, str(total), near(draw, total))


# --- logic ---------------------------------------------------------------------------------


def rank(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """Who comes first, from comparisons of neighbours in any order."""
    places = draw.sample(range(len(_NAMES_EN)), 2 + difficulty)
    more, most, zh = draw.choice(_ORDERS)
    names = [(_NAMES_ZH if language == "zh" else _NAMES_EN)[place] for place in places]
    pairs = list(itertools.pairwise(names))
    draw.shuffle(pairs)
    if language == "zh":
        facts = "，".join(f"{a}比{b}{zh}" for a, b in pairs)
        question = f"{facts}。谁最{zh}？"
        steps = "，".join(f"{a}比{b}{zh}" for a, b in itertools.pairwise(names))
    else:
        facts = " ".join(f"{a} is {more} than {b}." for a, b in pairs)
        question = f"{facts} Who is the {most}?"
        steps = ", ".join(f"{a} is {more} than {b}" for a, b in itertools.pairwise(names))
    family = f"rank/{more}/{','.join(map(str, places))}"
    return Problem(
        "rank", family, language, question, steps, names[0], _other(draw, names, names[0])
    )


def is_even(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """Whether a number is even, by its last digit."""
    value = number(draw, difficulty)
    even = value % 2 == 0
    if language == "zh":
        question, answers = f"{value}是偶数吗？", ("是", "否")
        steps = f"个位是{value % 10}"
    else:
        question, answers = f"Is {value} an even number?", ("yes", "no")
        steps = f"The last digit is {value % 10}"
    right, wrong = answers if even else answers[::-1]
    return Problem("even", f"even/{value}", language, question, steps, right, wrong)


def truth(draw: random.Random, language: Language, difficulty: int) -> Problem:
    """Whether two comparisons hold together, or one of them."""
    a, b, c, d = (number(draw, difficulty) for _ in range(4))
    both = draw.random() < 0.5
    first, second = a > b, c > d
    value = (first and second) if both else (first or second)
    if language == "zh":
        word, answers = ("并且" if both else "或者"), ("对", "错")
        question = f"{a} > {b} {word} {c} > {d}，这句话对吗？"
        steps = f"{a} > {b} {answers[not first]}，{c} > {d} {answers[not second]}"
    else:
        word, answers = ("and" if both else "or"), ("true", "false")
        question = f"Is this true: {a} > {b} {word} {c} > {d}?"
        steps = f"{a} > {b} is {answers[not first]}, {c} > {d} is {answers[not second]}"
    right, wrong = answers if value else answers[::-1]
    family = f"truth/{'and' if both else 'or'},{a},{b},{c},{d}"
    return Problem("truth", family, language, question, steps, right, wrong)


TASKS: dict[str, Generator] = {
    "reverse": reverse,
    "count-letter": count_letter,
    "length": length_of,
    "sort": _on_list(
        "sort", "Sort from small to large: {}.", "从小到大排列：{}。", lambda xs: sorted(xs)
    ),
    "largest": _on_list(
        "largest", "Which is the largest of {}?", "{}中最大的是哪个？", lambda xs: [max(xs)]
    ),
    "reverse-list": _on_list(
        "reverse-list", "Reverse this list: {}.", "把这列数倒过来：{}。", lambda xs: xs[::-1]
    ),
    "list-sum": list_sum,
    "rank": rank,
    "even": is_even,
    "truth": truth,
}
"""Kind → its generator."""
