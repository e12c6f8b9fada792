"""Rules to be found out from examples in the prompt: mapping, reversing, counting, copying and a
linear boundary, after k = 0 to 16 examples; not for what the weights know already.

Every item carries its own rule, so that only the examples tell it. The control has the same
examples with their answers shuffled: what it scores needs no rule (Min et al. 2022).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.task import Outcome, Settings
from isoflop.evaluation.tasks.choice import Choice, choose

SHOTS = (0, 1, 2, 4, 8, 16)
ITEMS = 100
"""Of each k."""
Example = tuple[str, str]
"""Question and answer."""
Rule = Callable[[random.Random, int], tuple[list[Example], tuple[str, ...]]]
"""(draw, number of examples) → that many examples of one rule, the last to be answered, and what
the answer is chosen among."""

_WORDS = (
    "red",
    "sun",
    "tree",
    "dog",
    "milk",
    "book",
    "rain",
    "hand",
    "fish",
    "star",
    "door",
    "king",
)
_LABELS = ("A", "B", "C", "D")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _mapping(draw: random.Random, n: int) -> tuple[list[Example], tuple[str, ...]]:
    """Four words, each with a label of its own; the word asked stands among the examples."""
    words = draw.sample(_WORDS, 4)
    label = dict(zip(words, draw.sample(_LABELS, 4), strict=True))
    # The answer must be known from the examples: all four words come before one comes again.
    order = [word for _ in range(n // 4 + 1) for word in draw.sample(words, 4)][: n - 1]
    asked = draw.choice(order or words)
    return [(word, label[word]) for word in [*order, asked]], _LABELS


def _copying(draw: random.Random, n: int) -> tuple[list[Example], tuple[str, ...]]:
    texts = [" ".join(draw.sample(_LETTERS, 4)) for _ in range(n)]
    return [(t, t) for t in texts], _permuted(draw, texts[-1], texts[-1])


def _reversing(draw: random.Random, n: int) -> tuple[list[Example], tuple[str, ...]]:
    texts = [" ".join(draw.sample(_LETTERS, 4)) for _ in range(n)]
    gold = texts[-1][::-1]
    return [(t, t[::-1]) for t in texts], _permuted(draw, gold, texts[-1])


def _permuted(draw: random.Random, gold: str, asked: str) -> tuple[str, ...]:
    """The gold text among other orders of the same letters: the letters alone tell nothing."""
    options = dict.fromkeys((gold, asked, asked[::-1]))
    while len(options) < 4:
        options[" ".join(draw.sample(asked.split(), 4))] = None
    return tuple(draw.sample(list(options), 4))


def _counting(draw: random.Random, n: int) -> tuple[list[Example], tuple[str, ...]]:
    examples: list[Example] = []
    for _ in range(n):
        count = draw.randint(1, 4)
        examples.append((" ".join([draw.choice(_WORDS)] * count), str(count)))
    return examples, ("1", "2", "3", "4")


def _linear(draw: random.Random, n: int) -> tuple[list[Example], tuple[str, ...]]:
    """Which side of a line through the middle a point of two digits lies on."""
    a, b = draw.choice([(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)])
    names = tuple(draw.sample(("yes", "no"), 2))
    examples: list[Example] = []
    while len(examples) < n:
        x, y = draw.randint(0, 9), draw.randint(0, 9)
        side = a * (2 * x - 9) + b * (2 * y - 9)
        if side:
            examples.append((f"{x} {y}", names[side > 0]))
    return examples, ("yes", "no")


RULES: dict[str, tuple[Rule, str]] = {
    "icl_mapping": (_mapping, "words to arbitrary labels"),
    "icl_copying": (_copying, "repeating letters"),
    "icl_reversing": (_reversing, "letters backwards"),
    "icl_counting": (_counting, "how many words"),
    "icl_linear": (_linear, "two classes of points parted by a line"),
}


def in_context(rule: Rule, name: str, subject: Subject, settings: Settings) -> Outcome:
    """Items of one rule at every k; the score is that of the largest k."""
    items = []
    for shots in SHOTS:
        for number in range(settings.limit or ITEMS):
            draw = random.Random(f"{settings.seed}/{name}/{shots}/{number}")
            examples, options = rule(draw, shots + 1)
            items.append(_item(name, shots, number, examples, options, control=False))
            if shots == SHOTS[-1]:
                answers = [answer for _, answer in examples[:-1]]
                draw.shuffle(answers)
                questions = [question for question, _ in examples[:-1]]
                shuffled = [*zip(questions, answers, strict=True), examples[-1]]
                items.append(_item(name, shots, number, shuffled, options, control=True))
    return choose(subject, items, {})


def _item(
    name: str, shots: int, number: int, examples: list[Example], options: tuple[str, ...],
    *, control: bool,
) -> Choice:  # fmt: skip
    lines = [f"{question} -> {answer}\n" for question, answer in examples[:-1]]
    asked, gold = examples[-1]
    group = f"k={shots}, answers shuffled" if control else f"k={shots}"
    return Choice(
        f"{group}/{number}",
        f"{''.join(lines)}{asked} ->",
        tuple(f" {option}\n" for option in options),
        options.index(gold),
        groups=(group,),
        counts=shots == SHOTS[-1] and not control,
    )


def runner(name: str) -> Callable[[Subject, Settings], Outcome]:
    """What asks the items of the rule of that name."""
    return partial(in_context, RULES[name][0], name)
