"""The conversations of an instruction set as packed windows and questions, ready to learn from.

Not for the templates (`chat.py`), the packing (`packed.py`) nor the training (`sft.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from isoflop.alignment.chat import Chat, Encoded
from isoflop.alignment.packed import Conversations
from isoflop.alignment.sft_recipe import InstructData, SftRecipe
from isoflop.core.errors import DataError
from isoflop.data.instruct import InstructSet, SplitName, file_name, open_set
from isoflop.data.instruct_rows import conversation, prompt_messages

_SHOWN = 5
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Question:
    """A held-out question whose answer is known."""

    prompt_ids: tuple[int, ...]
    answer: str
    kind: str
    """Kind of problem; "" if the row does not say."""


@dataclass(frozen=True)
class SftData:
    """The conversations of a run, ready to learn."""

    train: Conversations
    held_out: Conversations | None
    questions: tuple[Question, ...]
    left_out: tuple[Mapping[str, Any], ...]
    """`{file, line, reason}` of each conversation of the training split that is not used, or is
    used cut."""
    conversations: int

    def counted(self) -> dict[str, int]:
        """Reason → how many conversations are left out or cut."""
        return dict(sorted(Counter(row["reason"] for row in self.left_out).items()))


def open_conversations(recipe: SftRecipe, chat: Chat, seq_len: int) -> SftData:
    """Encode and pack the rows of a set.

    Raises:
        DataError: A conversation is refused by the template, has nothing to learn or is too long,
            and the recipe says to stop; up to five are named by file and line.
    """
    rows = open_set(recipe.data.set)
    train, left_out = _encoded(rows, "train", recipe, chat, seq_len)
    held_out, _ = _encoded(rows, "held_out", recipe, chat, seq_len)
    held_out = spread(held_out, recipe.train.eval_rows)
    asked = [
        row for row in rows.rows("supervised", "held_out") if isinstance(row.get("answer"), str)
    ]
    questions = []
    for row in spread(asked, recipe.train.eval_answers):
        ids = chat.prompt_ids(prompt_messages(row))
        questions.append(Question(tuple(ids), row["answer"], str(row.get("problem", ""))))
    seed = recipe.train.seed
    return SftData(
        train=Conversations(train, seq_len, seed),
        held_out=Conversations(held_out, seq_len, seed) if held_out else None,
        questions=tuple(questions),
        left_out=tuple(left_out),
        conversations=len(train),
    )


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of the items, evenly from all of them: sets list source after source."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _encoded(
    rows: InstructSet, split: SplitName, recipe: SftRecipe, chat: Chat, seq_len: int
) -> tuple[list[Encoded], list[dict[str, Any]]]:
    """The usable conversations of a split, and `{file, line, reason}` of the others."""
    kept, left_out, fatal = [], [], []
    path = rows.directory / file_name("supervised", split)
    for line, row in enumerate(rows.rows("supervised", split), 1):
        encoded, reason, choice = _judged(row, recipe.data, chat, seq_len)
        if encoded is not None and choice in ("use", "cut"):
            kept.append(encoded)
        if choice == "stop":
            fatal.append(f"{path}:{line}: {reason}")
        elif choice != "use":
            said = "cut" if choice == "cut" else reason
            left_out.append({"file": str(path), "line": line, "reason": said})
    if fatal:
        more = f" and {len(fatal) - _SHOWN} more" if len(fatal) > _SHOWN else ""
        raise DataError(
            f"{len(fatal)} conversations cannot be learnt from: {'; '.join(fatal[:_SHOWN])}{more}",
            where="data.set",
            fix='Leave them out with data.unusable = "skip" or data.too_long = "skip", or '
            "give a longer train.seq_len",
        )
    return kept, left_out


def _judged(
    row: dict[str, Any], data: InstructData, chat: Chat, seq_len: int
) -> tuple[Encoded | None, str, Literal["use", "cut", "skip", "stop"]]:
    """A conversation, what is wrong with it, and what the recipe wants done about that."""
    try:
        # The last id of a window is a label only, hence one more than the window.
        encoded = chat.encode(conversation(row), seq_len + 1)
    except DataError as error:
        return None, error.what, data.unusable
    if not any(encoded.supervised[1:]):
        return None, "nothing to learn", data.unusable
    if encoded.cut:
        return encoded, "too long", data.too_long
    return encoded, "", "use"
