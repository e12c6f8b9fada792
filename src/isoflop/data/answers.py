"""Whether a text gives the right answer: exact, numeric, or by pattern; not for judging prose."""

from __future__ import annotations

import re
from fractions import Fraction

_MARKS = re.compile(r"(?:[Tt]he answer is|[Aa]nswer:|答案是|答案：|答案:)\s*")
_ENDS = " \t\r\n.。!！,，;；"
_NUMBER = re.compile(r"[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")


def final_answer(text: str) -> str:
    """What a text says at its end: after its last "The answer is" or "答案是", else all of it.

    Blanks and closing marks around it are left out.
    """
    marks = list(_MARKS.finditer(text))
    said = text[marks[-1].end() :] if marks else text
    lines = said.strip(_ENDS).splitlines()
    return lines[0].strip(_ENDS) if lines else ""


def is_right(text: str, answer: str) -> bool:
    """Whether a text's final answer is this one: equal as numbers if both are, else as text
    without regard to case."""
    said, wanted = final_answer(text), answer.strip(_ENDS)
    a, b = _number(said), _number(wanted)
    if a is not None and b is not None:
        return a == b
    return said.casefold() == wanted.casefold()


def matches(text: str, pattern: str) -> bool:
    """Whether the whole final answer fits a regular expression.

    Raises:
        re.error: The pattern is none.
    """
    return re.fullmatch(pattern, final_answer(text)) is not None


def _number(text: str) -> Fraction | None:
    if not _NUMBER.fullmatch(text):
        return None
    plain = text.replace(",", "").replace("−", "-")
    whole, _, below = plain.partition("/")
    if below and not int(below):
        return None
    return Fraction(whole) / (int(below) if below else 1)
