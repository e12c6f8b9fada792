"""What is plainly wrong with an answer, seen from its text alone; not whether it is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from isoflop.data.instruct_rows import conversation, prompt_messages

_LONG, _GRAM, _LEAST_DISTINCT = 30, 3, 0.3
_MODEL = re.compile(
    r"\b[Aa]s an? (?:AI|artificial intelligence)(?: language)? (?:model|assistant)|"
    r"\bI(?:'m| am) (?:just )?an AI\b|作为(?:一个|一名)?(?:AI|人工智能|大?语言模型)"
)


def flaw(row: Mapping[str, Any]) -> str | None:
    """The first flaw of a supervised row's or a preferred answer, in words to count by."""
    if "chosen" in row:
        chosen = row["chosen"]
        answers = [chosen] if isinstance(chosen, str) else [m["content"] for m in chosen]
    else:
        answers = [m["content"] for m in conversation(row) if m["role"] == "assistant"]
    asked = {m["content"].strip().casefold() for m in prompt_messages(row)}
    for answer in answers:
        if "\ufffd" in answer:
            return "broken characters"
        if _MODEL.search(answer):
            return "speaks of being a language model"
        if len(answer.split()) > 1 and answer.strip().casefold() in asked:
            return "the answer repeats the question"
        if _repeats(answer):
            return "the answer repeats itself"
    return None


def _repeats(text: str) -> bool:
    """Whether few of a long text's runs of three words (or Chinese characters) are different."""
    words = re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text)
    if len(words) < _LONG:
        return False
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return len(set(grams)) < _LEAST_DISTINCT * len(grams)
