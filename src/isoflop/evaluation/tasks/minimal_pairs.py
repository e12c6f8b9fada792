"""Two sentences that differ in one thing, one of them wrong: which does the model find likelier?

Not for what the sentences mean. The generated pairs need no hub and few words; BLiMP's (Warstadt
et al. 2020) and ZhoBLiMP's files are read where given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from isoflop.core.errors import DataError
from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.task import Outcome, Settings
from isoflop.evaluation.tasks.choice import Choice, choose
from isoflop.evaluation.tasks.files import read_text, reason

PAIRS = 50
"""Of each kind."""
Pair = tuple[str, str]

_NOUNS = ("boy", "girl", "teacher", "farmer", "doctor", "dog", "cat", "bird", "king", "child")
_PLURALS = {"child": "children"}
_VERBS = ("walk", "sleep", "run", "sing", "eat", "play", "jump", "swim")
_MEN, _WOMEN = ("Tom", "Ben", "Jack", "Paul"), ("Anna", "Lucy", "Mia", "Rosa")
_THINGS = ("book", "ball", "box", "cup", "apple", "egg", "card", "coin")


def _plural(noun: str) -> str:
    return _PLURALS.get(noun, f"{noun}s")


def _agreement(draw: random.Random) -> Pair:
    noun, verb = draw.choice(_NOUNS), draw.choice(_VERBS)
    if draw.random() < 0.5:
        return f"The {noun} {verb}s every day.", f"The {noun} {verb} every day."
    return f"The {_plural(noun)} {verb} every day.", f"The {_plural(noun)} {verb}s every day."


def _agreement_across(draw: random.Random) -> Pair:
    noun, other = draw.sample(_NOUNS, 2)
    verb = draw.choice(("is", "was"))
    wrong = {"is": "are", "was": "were"}[verb]
    start = f"The {noun} near the {_plural(other)}"
    return f"{start} {verb} here.", f"{start} {wrong} here."


def _determiner(draw: random.Random) -> Pair:
    noun = draw.choice(_NOUNS)
    near, far = draw.choice((("this", "these"), ("that", "those")))
    return f"I saw {near} {noun} today.", f"I saw {far} {noun} today."


def _article(draw: random.Random) -> Pair:
    thing = draw.choice(_THINGS)
    right, wrong = ("an", "a") if thing[0] in "aeiou" else ("a", "an")
    return f"She has {right} {thing}.", f"She has {wrong} {thing}."


def _reflexive(draw: random.Random) -> Pair:
    verb = draw.choice(("saw", "hurt", "liked", "helped", "washed"))
    if draw.random() < 0.5:
        return (f"{(n := draw.choice(_MEN))} {verb} himself.", f"{n} {verb} herself.")
    return (f"{(n := draw.choice(_WOMEN))} {verb} herself.", f"{n} {verb} himself.")


def _word_order(draw: random.Random) -> Pair:
    noun, thing = draw.choice(_NOUNS), draw.choice(_THINGS)
    return f"The {noun} has the {thing}.", f"The {noun} the {thing} has."


def _tense(draw: random.Random) -> Pair:
    verb, name = draw.choice(("walk", "play", "jump")), draw.choice(_MEN + _WOMEN)
    return f"Yesterday {name} {verb}ed home.", f"Yesterday {name} will {verb} home."


_NAMES_ZH = ("小明", "小红", "小华", "小丽", "小刚", "小芳")
_MEASURED = (("书", "本"), ("花", "朵"), ("纸", "张"), ("马", "匹"), ("鱼", "条"), ("笔", "支"))


def _measure_word(draw: random.Random) -> Pair:
    (noun, right), (_, wrong) = draw.sample(_MEASURED, 2)
    name, number = draw.choice(_NAMES_ZH), draw.choice("一两三四五六")
    return f"{name}有{number}{right}{noun}。", f"{name}有{number}{wrong}{noun}。"


def _aspect(draw: random.Random) -> Pair:
    name, verb = draw.choice(_NAMES_ZH), draw.choice(("去", "买", "看", "吃"))
    return f"{name}昨天没有{verb}。", f"{name}昨天没有{verb}了过。"


def _negation(draw: random.Random) -> Pair:
    name, thing = draw.choice(_NAMES_ZH), draw.choice(("书", "钱", "花", "笔", "时间"))
    return f"{name}没有{thing}。", f"{name}不有{thing}。"


def _ba(draw: random.Random) -> Pair:
    name, thing = draw.choice(_NAMES_ZH), draw.choice(("苹果", "饼干", "鸡蛋", "米饭"))
    return f"{name}把{thing}吃了。", f"{name}把吃了{thing}。"


def _question_zh(draw: random.Random) -> Pair:
    name, thing = draw.choice(_NAMES_ZH), draw.choice(("书", "花", "苹果", "笔"))
    return f"{name}有没有{thing}？", f"{name}有没有{thing}吗？"


def _location(draw: random.Random) -> Pair:
    name, place = draw.choice(_NAMES_ZH), draw.choice(("家", "学校", "河边", "山上"))
    return f"{name}在{place}看书。", f"{name}看书在{place}。"


def _comparison(draw: random.Random) -> Pair:
    (one, two), how = draw.sample(_NAMES_ZH, 2), draw.choice("高大快好")
    return f"{one}比{two}{how}得多。", f"{one}比{two}很{how}。"


KINDS: dict[str, tuple[tuple[str, Callable[[random.Random], Pair]], ...]] = {
    "en": (
        ("agreement", _agreement), ("agreement across a noun", _agreement_across),
        ("determiner", _determiner), ("article", _article), ("reflexive", _reflexive),
        ("word order", _word_order), ("tense", _tense),
    ),
    "zh": (
        ("量词", _measure_word), ("体", _aspect), ("否定", _negation), ("把", _ba),
        ("疑问", _question_zh), ("处所", _location), ("比较", _comparison),
    ),
}  # fmt: skip


def minimal_pairs(subject: Subject, settings: Settings) -> Outcome:
    """Pairs generated in English and Chinese, or those of a file or directory of JSONL.

    The same pair never comes twice, so a kind may have fewer than asked for.

    Raises:
        DataError: A file holds something else; the line is named.
    """
    if settings.path is not None:
        return choose(subject, _read(settings.path, settings.limit), {})
    items = []
    for language, kinds in KINDS.items():
        for kind, make in kinds:
            draw = random.Random(f"{settings.seed}/{kind}")
            drawn = dict.fromkeys(make(draw) for _ in range(settings.limit or PAIRS))
            items += [
                _item(f"{language}/{kind}/{i}", good, bad, (language, f"{language}: {kind}"))
                for i, (good, bad) in enumerate(drawn)
            ]
    return choose(subject, items, {})


def _item(name: str, good: str, bad: str, groups: tuple[str, ...]) -> Choice:
    return Choice(name, "", (good, bad), 0, groups=groups)


def _read(path: Path, limit: int | None) -> list[Choice]:
    items: list[Choice] = []
    for file in [path] if path.is_file() else sorted(path.rglob("*.jsonl")):
        lines = [line for line in read_text(file).splitlines() if line.strip()]
        for number, line in enumerate(lines[:limit], 1):
            try:
                row = json.loads(line)
                good, bad = row["sentence_good"], row["sentence_bad"]
                kind = str(row.get("UID", row.get("paradigm", file.stem)))
                items.append(_item(f"{file.stem}/{number}", str(good), str(bad), (kind,)))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(
                    f"not a minimal pair ({reason(error)})",
                    where=f"{file}:{number}",
                    fix='A row is {"sentence_good": …, "sentence_bad": …}, as in BLiMP',
                ) from None
    if not items:
        raise DataError("there are no minimal pairs", where=str(path))
    return items
