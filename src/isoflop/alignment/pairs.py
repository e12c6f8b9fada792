"""Preference and rated rows of an instruction set as ids; not the losses on them (`preference.py`,
`reward.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isoflop.alignment.answers import Answer
from isoflop.alignment.chat import Chat
from isoflop.core.errors import DataError
from isoflop.data.instruct import SplitName, file_name, open_set
from isoflop.data.instruct_rows import prompt_messages
from isoflop.data.loader import shuffled


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt."""

    chosen: Answer
    rejected: Answer
    margin: float | None
    """How much better, where the row says so."""
    head: str | None
    """What it was judged by (`helpful`, `harmless` …), where the row says so."""


@dataclass(frozen=True)
class Rated:
    """An answer that was good or not."""

    answer: Answer
    desirable: bool


@dataclass(frozen=True)
class Pairs:
    """The pairs of a set."""

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    left_out: tuple[Mapping[str, Any], ...]
    """`{file, line, reason}` of each row of the training split that is not used."""

    def counted(self) -> dict[str, int]:
        """Reason → how many rows are left out."""
        return dict(sorted(Counter(row["reason"] for row in self.left_out).items()))


def open_pairs(directory: Path, chat: Chat, max_tokens: int) -> Pairs:
    """Encode the preference rows of a set.

    Args:
        max_tokens: Longer answers, prompt included, are left out and counted with their pair.

    Raises:
        ArtifactError: The set is missing, unfinished or damaged.
        DataError: No pair can be used, or the template writes prompts differently where an
            answer follows.
    """
    train, left_out = _pairs(directory, "train", chat, max_tokens)
    held_out, _ = _pairs(directory, "held_out", chat, max_tokens)
    found = Pairs(tuple(train), tuple(held_out), tuple(left_out))
    if not train:
        counted = ", ".join(f"{reason} {n}" for reason, n in found.counted().items())
        raise DataError(
            "the set has no preference pairs to learn from" + (f" ({counted})" if counted else ""),
            where=str(directory),
            fix="Give rows with `chosen` and `rejected`, or `preferences` of a generated source",
        )
    return found


def open_rated(directory: Path, split: SplitName, chat: Chat, max_tokens: int) -> list[Rated]:
    """The rated rows of a split, and each preference pair as a good and a bad answer.

    Raises:
        ArtifactError, DataError: As `open_pairs`.
    """
    rated = []
    for row in open_set(directory).rows("rated", split):
        answer = encode_answer(chat, row, row["completion"], max_tokens)
        if answer is not None:
            rated.append(Rated(answer, row["label"]))
    for pair in _pairs(directory, split, chat, max_tokens)[0]:
        rated += [Rated(pair.chosen, True), Rated(pair.rejected, False)]
    return rated


def _pairs(
    directory: Path, split: SplitName, chat: Chat, max_tokens: int
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """The pairs that can be used, and `{file, line, reason}` of the others."""
    found, left_out = [], []
    path = directory / file_name("preference", split)
    for line, row in enumerate(open_set(directory).rows("preference", split), 1):
        try:
            chosen = encode_answer(chat, row, row["chosen"], max_tokens)
            rejected = encode_answer(chat, row, row["rejected"], max_tokens)
        except DataError as error:
            raise DataError(error.what, where=f"{path}:{line}", fix=error.fix) from None
        if chosen is None or rejected is None:
            left_out.append({"file": str(path), "line": line, "reason": "too long"})
        elif chosen.ids == rejected.ids:
            left_out.append({"file": str(path), "line": line, "reason": "the same in ids"})
        else:
            found.append(Pair(chosen, rejected, row.get("margin"), row.get("head")))
    return found, left_out


def encode_answer(chat: Chat, row: Mapping[str, Any], said: Any, max_tokens: int) -> Answer | None:
    """A row's prompt with an answer to it; None if the two are longer than `max_tokens`.

    Args:
        said: Text, or a list of messages.

    Raises:
        DataError: The template writes the prompt differently where an answer follows.
    """
    asked = prompt_messages(row)
    messages = [{"role": "assistant", "content": said}] if isinstance(said, str) else list(said)
    prompt = tuple(chat.prompt_ids(asked))
    whole = chat.encode([*asked, *messages])
    if whole.ids[: len(prompt)] != prompt:
        raise DataError(
            "the chat template writes a prompt differently where an answer follows",
            where="chat template",
            fix="Mend the template, or take chatml",
        )
    # What the template writes behind the token that ends an answer belongs to no answer.
    end = max((i + 1 for i, learnt in enumerate(whole.supervised) if learnt), default=0)
    ids = whole.ids[len(prompt) : end]
    return Answer(prompt, ids) if ids and len(prompt) + len(ids) <= max_tokens else None


def batch_numbers(step: int, size: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Which of `count` items the batch of a step holds: each epoch in a fresh order."""
    return shuffled(np.arange(step * size, (step + 1) * size), count, seed)


def answers_of(pairs: Sequence[Pair]) -> list[Answer]:
    """All chosen answers, then all rejected ones."""
    return [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
