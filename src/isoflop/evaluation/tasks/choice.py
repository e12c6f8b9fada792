"""Choosing among options by likelihood, and multiple-choice files (MMLU's and C-Eval's forms).

Not for free answers. The option with the highest log-probability is the model's choice; the same
per byte of the option is kept beside it, for options of unequal length.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.errors import DataError
from isoflop.evaluation.likelihood import Subject, loglikelihood
from isoflop.evaluation.task import Outcome, Record, Settings
from isoflop.evaluation.tasks.files import read_text, reason

LETTERS = "ABCDEFGHIJ"
_CHINESE_MARK = "答案"


@dataclass(frozen=True)
class Choice:
    """A context and what may follow it."""

    id: str
    context: str
    options: tuple[str, ...]
    gold: int
    groups: tuple[str, ...] = ()
    cluster: str | None = None
    counts: bool = True
    contexts: tuple[str, ...] | None = None
    """Where each option has a context of its own."""


def choose(subject: Subject, items: Sequence[Choice], extra: Mapping[str, Any]) -> Outcome:
    """Ask all items at once; right is 1, wrong 0. Chance is the mean of one over the options."""
    pairs = [pair for item in items for pair in _pairs(item)]
    found = iter(loglikelihood(subject, pairs))
    records, per_byte, gold_mean = [], [], []
    for item in items:
        answers = [next(found) for _ in item.options]
        logprobs = [answer.logprob for answer in answers]
        sizes = [max(1, answer.n_bytes) for answer in answers]
        by_byte = [a / b for a, b in zip(logprobs, sizes, strict=True)]
        chosen = logprobs.index(max(logprobs))
        if item.counts:
            per_byte.append(by_byte.index(max(by_byte)) == item.gold)
            gold_mean.append(logprobs[item.gold] - _log_sum(logprobs))
        records.append(
            Record(
                item.id, float(chosen == item.gold), groups=item.groups, cluster=item.cluster,
                counts=item.counts,
                detail={
                    "context": item.context, "options": list(item.options), "gold": item.gold,
                    "chosen": chosen, "logprobs": logprobs, "bytes": sizes,
                    "greedy": [answer.greedy for answer in answers],
                    "truncated": any(answer.truncated for answer in answers),
                },
            )
        )  # fmt: skip
    counted = [item for item in items if item.counts]
    if not counted:
        raise DataError("the task has no items")
    return Outcome(
        "accuracy",
        tuple(records),
        chance=sum(1 / len(item.options) for item in counted) / len(counted),
        extra={
            "accuracy_per_byte": sum(per_byte) / len(counted),
            # What grows smoothly where accuracy jumps: the gold option's share among all.
            "gold_log_share": math.fsum(gold_mean) / len(counted),
            "truncated": sum(record.detail["truncated"] for record in records),
            **extra,
        },
    )


def _pairs(item: Choice) -> Iterator[tuple[str, str]]:
    contexts = item.contexts or (item.context,) * len(item.options)
    yield from zip(contexts, item.options, strict=True)


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(each - top) for each in logs))


# --- files ---------------------------------------------------------------------------------


def multiple_choice(subject: Subject, settings: Settings) -> Outcome:
    """MMLU's or C-Eval's CSV, or JSONL `{question, choices, answer}`: one file, or a directory
    of them (one a subject); the letters are the options.

    Raises:
        DataError: A file holds something else; the line is named.
    """
    path = settings.path or Path()
    files = sorted(p for p in path.rglob("*") if p.suffix in (".csv", ".jsonl", ".json"))
    items: list[Choice] = []
    for file in [path] if path.is_file() else files:
        rows = list(_rows(file))[: settings.limit]
        items += [_lettered(file, number, row) for number, row in enumerate(rows)]
    if not items:
        raise DataError("there are no questions", where=str(path))
    return choose(subject, items, {})


@dataclass(frozen=True)
class Question:
    """One row of a file."""

    text: str
    options: tuple[str, ...]
    gold: int


def _lettered(file: Path, number: int, row: Question) -> Choice:
    chinese = any("\u4e00" <= c <= "\u9fff" for c in row.text)
    lines = [row.text, *(f"{a}. {b}" for a, b in zip(LETTERS, row.options, strict=False))]
    context = "\n".join([*lines, f"{_CHINESE_MARK}：" if chinese else "Answer:"])
    letters = tuple(LETTERS[i] if chinese else f" {LETTERS[i]}" for i in range(len(row.options)))
    return Choice(f"{file.stem}/{number}", context, letters, row.gold, groups=(file.stem,))


def _rows(file: Path) -> Iterator[Question]:
    content = read_text(file)
    if file.suffix != ".csv":
        for line, text in enumerate(content.split("\n"), 1):
            if text.strip():
                yield _from_json(text, f"{file}:{line}")
        return
    rows = list(csv.reader(io.StringIO(content, newline="")))
    # C-Eval names its columns; MMLU's are question, A, B, C, D, answer.
    header = [name.strip().lower() for name in rows[0]] if rows else []
    named = "question" in header and "answer" in header
    for line, cells in enumerate(rows[named:], 1 + named):
        row = dict(zip(header, cells, strict=False)) if named else None
        if row is not None:
            options = tuple(row[c] for c in "abcdefghij" if row.get(c))
            text, answer = row["question"], row.get("answer", "")
        elif len(cells) >= 4:
            text, options, answer = cells[0], tuple(cells[1:-1]), cells[-1]
        else:
            raise DataError("not question, options, answer", where=f"{file}:{line}")
        yield Question(text.strip(), options, _gold(answer, len(options), f"{file}:{line}"))


def _from_json(text: str, where: str) -> Question:
    try:
        row = json.loads(text)
        options = row["choices"] if "choices" in row else row["options"]
        if isinstance(options, dict):  # ARC's form: {text: […], label: […]}
            labels = [str(label) for label in options["label"]]
            gold = labels.index(str(row.get("answerKey", row.get("answer"))))
            return Question(str(row["question"]), tuple(options["text"]), gold)
        answer = row.get("answer", row.get("gold"))
        options = tuple(str(option) for option in options)
        return Question(str(row["question"]), options, _gold(answer, len(options), where))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a question with choices and an answer ({reason(error)})",
            where=where,
            fix='A row is {"question": …, "choices": […], "answer": 0 or "A"}',
        ) from None


def _gold(answer: object, n: int, where: str) -> int:
    text = str(answer).strip().upper()
    index = int(text) if text.isdigit() else LETTERS.find(text) if len(text) == 1 else -1
    if not 0 <= index < n <= len(LETTERS):
        raise DataError(f"the answer {answer!r} is none of {n} options", where=where)
    return index
