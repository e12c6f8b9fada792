"""Answers in which a model calls tools: it writes a call, gets the result, and goes on.

Not for how a call looks as ids (`chat.py`) nor for the calculator itself (`data/calculator.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isoflop.alignment.chat import Chat
from isoflop.core.errors import DataError
from isoflop.data.calculator import calculate
from isoflop.models.decoder import Decoder
from isoflop.models.generate import generate

Tool = Callable[[Mapping[str, object]], str]
"""Arguments → result as text; raises DataError for arguments it cannot use."""
MAX_CALLS = 8


@dataclass(frozen=True)
class Call:
    """A tool that was called."""

    name: str
    arguments: str
    """As the model wrote them."""
    result: str
    """What it got, or `error: …`."""


@dataclass(frozen=True)
class Turn:
    """What a model made of a conversation."""

    text: str
    """Its answer: what it wrote after the last call."""
    messages: tuple[Mapping[str, Any], ...]
    """What to append to the conversation, with ids: calls, results and the answer."""
    calls: tuple[Call, ...]
    context: tuple[int, ...]
    """The prompt and all that followed: calls, results and the answer."""
    new_tokens: int
    """Ids the model wrote, calls and ends included."""
    ended: bool
    """Whether it ended its turn by itself."""


def calculator(arguments: Mapping[str, object]) -> str:
    """The tool `calculator`: the exact value of `expression`.

    Raises:
        DataError: There is no expression, or it has no value.
    """
    expression = arguments.get("expression")
    if not isinstance(expression, str):
        raise DataError('give {"expression": "…"}')
    return calculate(expression)


TOOLS: Mapping[str, Tool] = {"calculator": calculator}


def answer(
    model: Decoder,
    chat: Chat,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    *,
    tools: Mapping[str, Tool] = TOOLS,
    temperature: float = 0.0,
    seed: int = 0,
) -> Turn:
    """Let a model answer; wherever it ends a turn with a call, run the tool and let it go on.

    Only ids make a call, the control token that opens it first: no text can. Results are counted
    neither in `max_new_tokens` nor as the model's.

    Args:
        prompt_ids: As `Chat.prompt_ids` makes them.
        max_new_tokens: Most ids to write, all turns together.

    Raises:
        RecipeError: As `generate`.
    """
    openings = {name: ids for name in tools if (ids := chat.call_ids(name)) is not None}
    stop = {chat.stop_id, chat.tokenizer.eos_id}
    context, left = list(prompt_ids), max_new_tokens
    calls: list[Call] = []
    messages: list[Mapping[str, Any]] = []
    while True:
        written = generate(
            model, context, left, temperature=temperature, seed=seed + len(calls), stop_ids=stop
        )
        left -= len(written)
        context += written
        ended = bool(written) and written[-1] in stop
        turn = tuple(written[:-1] if ended else written)
        messages.append({"role": "assistant", "content": chat.decode(turn), "ids": turn})
        may_call = ended and written[-1] == chat.stop_id and len(calls) < MAX_CALLS and left > 0
        call = _called(chat, turn, openings) if may_call else None
        if call is None:
            return Turn(
                text=chat.decode(turn),
                messages=tuple(messages),
                calls=tuple(calls),
                context=tuple(context),
                new_tokens=max_new_tokens - left,
                ended=ended,
            )
        name, arguments = call
        calls.append(Call(name, arguments, _run(tools[name], arguments)))
        messages.append({"role": "tool", "content": calls[-1].result})
        context += chat.result_ids(calls[-1].result)


def _called(
    chat: Chat, turn: Sequence[int], openings: Mapping[str, tuple[int, ...]]
) -> tuple[str, str] | None:
    """The tool that a turn calls and its arguments as text."""
    for name, opening in openings.items():
        for at, index in enumerate(turn):
            if index == opening[0] and tuple(turn[at : at + len(opening)]) == opening:
                return name, chat.decode(turn[at + len(opening) :])
    return None


def _run(tool: Tool, arguments: str) -> str:
    try:
        read = json.loads(arguments)
    except (json.JSONDecodeError, RecursionError):
        return "error: the arguments are not JSON"
    if not isinstance(read, dict):
        return "error: the arguments are no object"
    try:
        return tool(read)
    except DataError as error:
        return f"error: {error.what}"
