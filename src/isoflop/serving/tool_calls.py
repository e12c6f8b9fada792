"""Finds the calls of tools in an answer as it comes; not for carrying them out.

Two forms are known: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` anywhere in the text
(Qwen, Hermes), and `<|im_start|>`, the name, a new line and the arguments at the end of a turn
(what Isoflop trains).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

OPEN_TAG, CLOSE_TAG = "<tool_call>", "</tool_call>"
TURN_MARK = "\U0010fff6"
"""Stands in the text for `<|im_start|>`, which shows nothing by itself; of a private plane."""


@dataclass(frozen=True)
class FoundCall:
    """A call of a tool."""

    name: str
    arguments: str
    """JSON."""

    def document(self, index: int | None = None) -> dict[str, Any]:
        """As OpenAI writes it; with an index in streams."""
        call = {
            "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }  # fmt: skip
        return call if index is None else {"index": index, **call}


class CallFinder:
    """Parts a stream of text into what is said and what is called.

    Args:
        by_tag: Calls are in tags; otherwise they follow `TURN_MARK`.
    """

    def __init__(self, by_tag: bool) -> None:
        self._open = OPEN_TAG if by_tag else TURN_MARK
        self._close = CLOSE_TAG if by_tag else None
        self._held = ""
        self._after_call = False
        self.n_calls = 0

    def push(self, text: str) -> tuple[str, list[FoundCall]]:
        """What is said and what is called, as far as both are certain."""
        self._held += text
        said = ""
        calls: list[FoundCall] = []
        while True:
            if self._after_call:  # the lines between calls are no text
                self._held = self._held.lstrip("\n")
                self._after_call = not self._held
            before, mark, after = self._held.partition(self._open)
            if not mark:
                keep = _overlap(self._held, self._open)
                said += self._held[: len(self._held) - keep]
                self._held = self._held[len(self._held) - keep :]
                return said, calls
            said, self._held = said + before, mark + after
            if self._close is None or self._close not in after:
                return said, calls
            inner, _, rest = after.partition(self._close)
            call = _from_json(inner)
            if call is None:
                said += mark + inner + self._close
            else:
                calls.append(call)
                self.n_calls += 1
            self._held, self._after_call = rest, call is not None

    def finish(self) -> tuple[str, list[FoundCall]]:
        """The rest, at the end of the answer: a call that is whole, or else text."""
        held, self._held = self._held, ""
        if not held.startswith(self._open):
            return held, []
        inner = held.removeprefix(self._open)
        call = _from_turn(inner) if self._close is None else _from_json(inner)
        if call is None:
            return held.replace(TURN_MARK, ""), []
        self.n_calls += 1
        return "", [call]


def _from_json(text: str) -> FoundCall | None:
    try:
        said = json.loads(text)
        name, arguments = said["name"], said.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return FoundCall(name, json.dumps(arguments, ensure_ascii=False))


def _from_turn(text: str) -> FoundCall | None:
    name, _, arguments = text.partition("\n")
    try:
        json.loads(arguments)
    except ValueError:
        return None
    return FoundCall(name.strip(), arguments.strip())


def _overlap(text: str, mark: str) -> int:
    return next(
        (
            size
            for size in range(min(len(text), len(mark) - 1), 0, -1)
            if text.endswith(mark[:size])
        ),
        0,
    )
