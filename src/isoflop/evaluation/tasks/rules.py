"""Instructions whose keeping a program can check, in English and Chinese, as in IFEval.

Not for whether an answer is good: an answer that keeps its rules may be nonsense (Zhou et al.
2023, "Instruction-Following Evaluation for Large Language Models").
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Instruction:
    """One rule with its numbers filled in."""

    rule: str
    en: str
    zh: str
    check: Check


Rule = Callable[[random.Random], tuple[str, str, Check]]
"""draw → (English wording, Chinese wording, check)."""

_WORDS = (("river", "河"), ("light", "光"), ("market", "市场"), ("winter", "冬天"))


def words(text: str) -> list[str]:
    """Words of letters and digits; each Chinese character is one."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+(?:['’-][^\W\u4e00-\u9fff]+)*", text)


def sentences(text: str) -> list[str]:
    """What full stops, question and exclamation marks of either script end."""
    return [part for part in re.split(r"[.!?。！？]+(?:\s|$)|[。！？]+", text) if part.strip()]


def paragraphs(text: str) -> list[str]:
    """What empty lines part."""
    return [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]


def bullets(text: str) -> list[str]:
    """Lines that begin with `- ` or `* `."""
    return re.findall(r"^\s*[-*] +\S.*$", text, re.MULTILINE)


def _at_most_words(draw: random.Random) -> tuple[str, str, Check]:
    n = draw.choice((20, 40, 60))
    return (
        f"Use at most {n} words.", f"不超过{n}个字。",
        lambda text: 0 < len(words(text)) <= n,
    )  # fmt: skip


def _at_least_words(draw: random.Random) -> tuple[str, str, Check]:
    n = draw.choice((10, 20, 30))
    return f"Use at least {n} words.", f"至少{n}个字。", lambda text: len(words(text)) >= n


def _sentences(draw: random.Random) -> tuple[str, str, Check]:
    n = draw.randint(1, 4)
    return (
        f"Write exactly {n} sentence{'s' * (n > 1)}.", f"正好写{n}句话。",
        lambda text: len(sentences(text)) == n,
    )  # fmt: skip


def _paragraphs(draw: random.Random) -> tuple[str, str, Check]:
    n = draw.randint(2, 3)
    return (
        f"Write exactly {n} paragraphs, with an empty line between them.",
        f"正好写{n}段，段间空一行。",
        lambda text: len(paragraphs(text)) == n,
    )


def _bullets(draw: random.Random) -> tuple[str, str, Check]:
    n = draw.randint(2, 4)
    return (
        f'Give exactly {n} bullet points, each on a line that begins with "- ".',
        f"正好列出{n}点，每点一行，以“- ”开头。",
        lambda text: len(bullets(text)) == n,
    )


def _include(draw: random.Random) -> tuple[str, str, Check]:
    en, zh = draw.choice(_WORDS)
    return (
        f'Use the word "{en}".', f"用上“{zh}”这个词。",
        lambda text: zh in text or en in [word.lower() for word in words(text)],
    )  # fmt: skip


def _include_often(draw: random.Random) -> tuple[str, str, Check]:
    (en, zh), n = draw.choice(_WORDS), draw.randint(2, 3)

    def check(text: str) -> bool:
        return max(text.count(zh), [word.lower() for word in words(text)].count(en)) >= n

    return f'Use the word "{en}" at least {n} times.', f"至少{n}次用到“{zh}”。", check


def _exclude(draw: random.Random) -> tuple[str, str, Check]:
    en, zh = draw.choice(_WORDS)

    def check(text: str) -> bool:
        return bool(text.strip()) and zh not in text and en not in map(str.lower, words(text))

    return f'Do not use the word "{en}".', f"不要用“{zh}”这个词。", check


def _no_comma(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "Use no commas.", "不要用逗号。",
        lambda text: bool(text.strip()) and not re.search("[,，]", text),
    )  # fmt: skip


def _question(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "End with a question mark.", "以问号结尾。",
        lambda text: text.rstrip().endswith(("?", "？")),
    )  # fmt: skip


def _begin(draw: random.Random) -> tuple[str, str, Check]:
    en, zh = draw.choice((("Well", "好"), ("First", "首先"), ("Today", "今天")))
    return (
        f'Begin with the word "{en}".', f"以“{zh}”开头。",
        lambda text: text.lstrip().startswith(zh) or words(text.lower())[:1] == [en.lower()],
    )  # fmt: skip


def _end(draw: random.Random) -> tuple[str, str, Check]:
    en, zh = draw.choice((("That is all.", "完毕。"), ("Thank you.", "谢谢。")))
    return (
        f'End with exactly this: "{en}"', f"用这句话结尾：“{zh}”",
        lambda text: text.rstrip().endswith((en, zh)),
    )  # fmt: skip


def _quoted(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "Put the whole answer in double quotation marks.", "整个回答放在双引号里。",
        lambda text: bool(re.fullmatch(r'\s*(".+"|“.+”)\s*', text, re.DOTALL)),
    )  # fmt: skip


def _title(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "Give the answer a title in double angle brackets, like <<this>>.",
        "给回答加一个标题，放在双尖括号里，如<<标题>>。",
        lambda text: bool(re.search(r"<<[^<>\n]+>>|《[^《》\n]+》", text)),
    )


def _placeholders(draw: random.Random) -> tuple[str, str, Check]:
    n = draw.randint(1, 3)
    return (
        f"Leave at least {n} place{'s' * (n > 1)} to fill in, in square brackets, like [name].",
        f"至少留{n}处待填的内容，放在方括号里，如[姓名]。",
        lambda text: len(re.findall(r"\[[^\[\]\n]+\]|【[^【】\n]+】", text)) >= n,
    )


def _lower_case(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "Write in lower case only.", "只用小写字母，不用大写字母。",
        lambda text: bool(text.strip()) and text == text.lower(),
    )  # fmt: skip


def _json(draw: random.Random) -> tuple[str, str, Check]:
    return "Answer with one JSON object.", "用一个JSON对象回答。", _is_json_object


def _is_json_object(text: str) -> bool:
    inside = re.fullmatch(r"\s*```(?:json)?\s*(.*?)```\s*", text, re.DOTALL)
    try:
        return isinstance(json.loads(inside[1] if inside else text), dict)
    except (json.JSONDecodeError, RecursionError):
        return False


def _postscript(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "Add a postscript that begins with P.S.", "最后加一段以P.S.开头的附言。",
        lambda text: bool(re.search(r"^\s*P\.\s?S\.\s*\S", text, re.MULTILINE)),
    )  # fmt: skip


def _digits(draw: random.Random) -> tuple[str, str, Check]:
    return (
        "Use no digits.", "不要用阿拉伯数字。",
        lambda text: bool(text.strip()) and not re.search(r"\d", text),
    )  # fmt: skip


RULES: dict[str, Rule] = {
    "at most words": _at_most_words, "at least words": _at_least_words, "sentences": _sentences,
    "paragraphs": _paragraphs, "bullet points": _bullets, "word": _include,
    "word often": _include_often, "word forbidden": _exclude, "no comma": _no_comma,
    "ends with a question": _question, "first word": _begin, "last sentence": _end,
    "quotation marks": _quoted, "title": _title, "places to fill in": _placeholders,
    "lower case": _lower_case, "json": _json, "postscript": _postscript, "no digits": _digits,
}  # fmt: skip
_APART = (
    {"at most words", "at least words"}, {"word", "word often", "word forbidden"},
    {"ends with a question", "last sentence", "quotation marks", "postscript"},
    {"first word", "quotation marks"}, {"sentences", "bullet points", "paragraphs", "title"},
    {"lower case", "first word", "last sentence", "postscript"},
    {"sentences", "at least words"},
)  # fmt: skip
"""Rules that may contradict each other are not asked together; JSON stands alone."""


def instruction(rule: str, draw: random.Random) -> Instruction:
    """The rule of that name with drawn numbers."""
    en, zh, check = RULES[rule](draw)
    return Instruction(rule, en, zh, check)


def together(draw: random.Random, most: int) -> list[Instruction]:
    """One to `most` rules that can be kept at once."""
    chosen: list[str] = []
    for name in draw.sample(list(RULES), len(RULES))[: draw.randint(1, most) + 3]:
        clash = any({name, other} <= group for group in _APART for other in chosen)
        if not clash and len(chosen) < most and not ("json" in (name, *chosen) and chosen):
            chosen.append(name)
    return [instruction(name, draw) for name in chosen]


def kept_loosely(check: Check, text: str) -> bool:
    """Whether the text, or it without its first or last line or asterisks, keeps the rule: an
    introduction or Markdown is forgiven (IFEval's loose accuracy)."""
    lines = text.split("\n")
    cuts = (text, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1]))
    return any(check(cut.strip()) or check(cut.strip().replace("*", "")) for cut in cuts)
