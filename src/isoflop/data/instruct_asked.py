"""Instruction rows written by a model behind an endpoint: self-instruct and back-translation.

Self-instruct (Wang et al. 2023) asks for new tasks like some examples and keeps those unlike all
that are there; back-translation (Li et al. 2024) asks which instruction a text would answer. Not
for the connection (`endpoint.py`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from isoflop.data.endpoint import BudgetSpent, Endpoint
from isoflop.data.instruct_recipe import InstructSource
from isoflop.data.instruct_rows import BadRow, checked, question_text
from isoflop.data.instruct_tables import read_rows

_EXAMPLES_GIVEN, _EXAMPLES_MADE = 6, 2
"""Of the seed rows and of the rows made so far (Wang et al. 2023, section 2.2)."""
_ASKS_A_ROW = 4
"""Requests for each row wanted, after which a source ends early."""
_NEW_TASK = (
    "Here are tasks with answers:\n\n{examples}\n\nWrite one more task that differs from all of "
    "them in subject and form, and its correct answer, in the language of one of them. Reply with "
    'JSON alone: {{"instruction": "…", "answer": "…"}}'
)
_INSTRUCTION = (
    "Which instruction or question would this text be the ideal answer to?\n\n{text}\n\nWrite it "
    'in the language of the text. Reply with JSON alone: {{"instruction": "…"}}'
)
_RATING = (
    "Rate how well the answer serves the instruction, from 1 (useless or wrong) to 5 (complete, "
    "correct and clear).\n\nInstruction: {prompt}\n\nAnswer: {completion}\n\nReply with JSON "
    'alone: {{"rating": 3}}'
)

Numbered = tuple[int, Any]
"""(number of the request or line of the text, row or `BadRow`)."""


def asked_rows(source: InstructSource, endpoint: Endpoint, seed: int) -> Iterator[Numbered]:
    """The rows that a source asks its endpoint for; fewer than `count` if the budget ends.

    Raises:
        DataError: The seed rows cannot be read, or the endpoint fails.
    """
    make = _self_instruct if source.kind == "self-instruct" else _back_translation
    with suppress(BudgetSpent):
        yield from make(source, endpoint, seed)


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two texts in words (Lin 2004, equation 4, β = 1)."""
    if not one or not other:
        return 0.0
    row = [0] * (len(other) + 1)
    for word in one:
        corner = 0
        for place, theirs in enumerate(other, 1):
            best = corner + 1 if word == theirs else max(row[place], row[place - 1])
            corner, row[place] = row[place], best
    return 2 * row[-1] / (len(one) + len(other))


def words_of(text: str) -> list[str]:
    """Words in lower case, each Chinese character one."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+", text.casefold())


# --- self-instruct -------------------------------------------------------------------------


def _self_instruct(source: InstructSource, endpoint: Endpoint, seed: int) -> Iterator[Numbered]:
    given = [pair for _, row in read_rows(source) if (pair := _example(row)) is not None]
    made: list[dict[str, Any]] = []
    pool = [words_of(each["prompt"]) for each in given]
    number, most = 0, _ASKS_A_ROW * source.count
    with ThreadPoolExecutor(endpoint.config.parallel) as threads:
        while len(made) < source.count and number < most:
            # A wave is asked with the examples there are before it, however its replies come in.
            wave = range(number, min(most, number + endpoint.config.parallel))
            number = wave.stop
            examples = [_examples(given, made, random.Random(f"{seed}/{n}")) for n in wave]
            asked = threads.map(lambda n, shown: _new_task(endpoint, shown, n), wave, examples)
            for n, row in zip(wave, asked, strict=True):
                row = _judged(source, endpoint, row, n)
                if not isinstance(row, BadRow):
                    words = words_of(row["prompt"])
                    if any(rouge_l(words, other) >= source.most_alike for other in pool):
                        row = BadRow("too like another instruction")
                    elif len(made) < source.count:
                        pool.append(words)
                        made.append(row)
                    else:
                        return
                yield n + 1, row


def _example(row: Any) -> dict[str, Any] | None:
    """A seed row as a prompt and a completion; None if it is not a row of one question."""
    try:
        kind, row = checked(row)
        if kind != "supervised":
            return None
        prompt = question_text(row)
    except BadRow:
        return None
    messages = row.get("messages")
    answer = messages[-1]["content"] if messages else row["completion"]
    return {"prompt": prompt, "completion": answer} if isinstance(answer, str) else None


def _examples(given: list[dict[str, Any]], made: list[dict[str, Any]], draw: random.Random) -> str:
    shown = draw.sample(given, min(_EXAMPLES_GIVEN, len(given)))
    shown += draw.sample(made, min(_EXAMPLES_MADE, len(made)))
    draw.shuffle(shown)
    return "\n\n".join(f"Task: {e['prompt']}\nAnswer: {e['completion']}" for e in shown)


def _new_task(endpoint: Endpoint, examples: str, seed: int) -> Any:
    found = _json(endpoint, _NEW_TASK.format(examples=examples), seed, ("instruction", "answer"))
    if isinstance(found, BadRow):
        return found
    return {"prompt": found["instruction"], "completion": found["answer"]}


# --- back-translation ----------------------------------------------------------------------


def _back_translation(source: InstructSource, endpoint: Endpoint, seed: int) -> Iterator[Numbered]:
    made = 0
    texts = iter(read_rows(source))
    with ThreadPoolExecutor(endpoint.config.parallel) as threads:
        while made < source.count:
            wave = [each for _, each in zip(range(endpoint.config.parallel), texts, strict=False)]
            if not wave:
                return
            asked = threads.map(lambda each: _translated(source, endpoint, each[1], seed), wave)
            for (line, _), row in zip(wave, asked, strict=True):
                if made >= source.count:
                    return
                made += not isinstance(row, BadRow)
                yield line, row


def _translated(source: InstructSource, endpoint: Endpoint, row: Any, seed: int) -> Any:
    if isinstance(row, BadRow):
        return row
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        return BadRow("missing text")
    found = _json(endpoint, _INSTRUCTION.format(text=text), seed, ("instruction",))
    if isinstance(found, BadRow):
        return found
    made = {"prompt": found["instruction"], "completion": text.strip()}
    return _judged(source, endpoint, made, seed)


# --- both ----------------------------------------------------------------------------------


def _judged(source: InstructSource, endpoint: Endpoint, row: Any, seed: int) -> Any:
    """The row, or a `BadRow` if the endpoint rates it below what the recipe asks."""
    if source.least_rating is None or isinstance(row, BadRow):
        return row
    asked = _RATING.format(prompt=row["prompt"], completion=row["completion"])
    found = _json(endpoint, asked, seed, ("rating",))
    if isinstance(found, BadRow):
        return found
    if int(found["rating"]) < source.least_rating:
        return BadRow(f"rated below {source.least_rating}")
    return {**row, "rating": int(found["rating"])}


def _json(endpoint: Endpoint, question: str, seed: int, keys: tuple[str, ...]) -> Any:
    """The object of a reply, or a `BadRow` if it is none."""
    text = endpoint.ask([{"role": "user", "content": question}], seed)
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        value = json.loads(found[0]) if found else None
    except (json.JSONDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return BadRow("the reply is not the JSON asked for")
    for key in keys:
        given = value.get(key)
        if key == "rating":
            if given not in (1, 2, 3, 4, 5):
                return BadRow("the rating is not 1 to 5")
        elif not isinstance(given, str) or not given.strip():
            return BadRow("the reply is not the JSON asked for")
    return value
