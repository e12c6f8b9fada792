"""The last word of a passage: generated stories that name it before, or a file in LAMBADA's form.

Not for knowledge: what is asked stands in the story.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from isoflop.core.errors import DataError
from isoflop.evaluation.likelihood import Subject, loglikelihood
from isoflop.evaluation.task import Outcome, Record, Settings
from isoflop.evaluation.tasks.choice import Choice, choose
from isoflop.evaluation.tasks.files import read_text

ITEMS = 100
"""Of each language."""
_NAMES_EN = ("Tom", "Anna", "Ben", "Lucy", "Sam", "Mia", "Jack", "Emma")
_NAMES_ZH = ("小明", "小红", "小华", "小丽", "小刚", "小芳", "小军", "小梅")
_PLACES_EN = ("park", "school", "market", "river", "house", "garden", "forest", "beach")
_PLACES_ZH = ("公园", "学校", "市场", "河边", "家里", "花园", "森林", "海边")
_OPTIONS = 4


def cloze(subject: Subject, settings: Settings) -> Outcome:
    """Generated: which of four places that the story names is asked for. From a file: whether
    greedy decoding writes the last word of each text.

    Raises:
        DataError: A row of the file has no text of two words.
    """
    if settings.path is not None:
        return _last_words(subject, settings.path, settings.limit)
    items = []
    for language in ("en", "zh"):
        for number in range(settings.limit or ITEMS):
            draw = random.Random(f"{settings.seed}/cloze/{language}/{number}")
            items.append(_story(draw, language, f"{language}/{number}"))
    return choose(subject, items, {})


def _story(draw: random.Random, language: str, name: str) -> Choice:
    english = language == "en"
    people = draw.sample(_NAMES_EN if english else _NAMES_ZH, _OPTIONS)
    places = draw.sample(_PLACES_EN if english else _PLACES_ZH, _OPTIONS)
    gold = draw.randrange(_OPTIONS)
    pairs = list(zip(people, places, strict=True))
    if english:
        told = " ".join(f"{person} went to the {place}." for person, place in pairs)
        asked, options = f" Now {people[gold]} is at the", [f" {place}" for place in places]
    else:
        told = "".join(f"{person}去了{place}。" for person, place in pairs)
        asked, options = f"现在{people[gold]}在", places
    return Choice(name, told + asked, tuple(options), gold, groups=(language,))


def _last_words(subject: Subject, path: Path, limit: int | None) -> Outcome:
    pairs: list[tuple[str, str]] = []
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    for number, line in enumerate(lines[:limit], 1):
        try:
            context, space, word = str(json.loads(line)["text"]).strip().rpartition(" ")
        except (json.JSONDecodeError, KeyError, TypeError):
            context = space = word = ""
        if not context:
            raise DataError(
                "not a text of two words or more",
                where=f"{path}:{number}",
                fix='A row is {"text": …}, as in LAMBADA',
            )
        pairs.append((context, space + word))
    found = loglikelihood(subject, pairs)
    records = tuple(
        Record(
            str(number), float(each.greedy),
            detail={"context": context, "gold": word, "logprob": each.logprob},
        )
        for number, ((context, word), each) in enumerate(zip(pairs, found, strict=True))
    )  # fmt: skip
    if not records:
        raise DataError("there are no texts", where=str(path))
    return Outcome("exact match", records, chance=0.0)
