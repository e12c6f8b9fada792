"""Rows of instruction, preference, rated and verifiable data: read, checked, brought to one form.

The conventions are those of TRL and the Hub: `{messages}` or `{prompt, completion}`, `{prompt,
chosen, rejected, margin?}`, `{prompt, completion, label}`, `{prompt, answer | verifier | tests}`,
each part a string or a list of messages; unknown keys are kept. Not for turning them into tokens
(`alignment/chat.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal["supervised", "preference", "rated", "verifiable"]
_CHECKED_BY = ("answer", "verifier", "tests")
"""What an answer may be judged by: the right one, a pattern, or a program's tests."""
ROLES = ("system", "user", "assistant", "tool")
Message = dict[str, Any]
_TOOL = re.compile(r"[A-Za-z0-9_-]{1,64}")


class BadRow(Exception):
    """A row that cannot be used; the message is the reason, short enough to count by."""


def kind_of(row: Mapping[str, Any]) -> Kind:
    """What sort of row this is, by its keys.

    Raises:
        BadRow: It is none of the four.
    """
    if "chosen" in row or "rejected" in row:
        return "preference"
    if "label" in row:
        return "rated"
    if "messages" in row or "completion" in row:
        return "supervised"
    if "prompt" in row and any(key in row for key in _CHECKED_BY):
        return "verifiable"
    raise BadRow("no known set of keys")


def checked(row: Any) -> tuple[Kind, dict[str, Any]]:
    """The kind of a row, and the row itself.

    Raises:
        BadRow: Something in it is missing, empty, of the wrong type or out of order.
    """
    if not isinstance(row, dict):
        raise BadRow("not an object")
    row = imported(row)
    kind = kind_of(row)
    if kind == "supervised":
        conversation(row)
    else:
        _prompt(row.get("prompt"))
    if kind == "preference":
        chosen, rejected = _answer(row.get("chosen"), "chosen"), _answer(row.get("rejected"), "rej")
        if chosen == rejected:
            raise BadRow("chosen and rejected are the same")
        if "margin" in row and not _is_number(row["margin"]):
            raise BadRow("the margin is no number")
    elif kind == "rated":
        _answer(row.get("completion"), "completion")
        if not isinstance(row["label"], bool):
            raise BadRow("the label is neither true nor false")
    elif kind == "verifiable" and not any(
        isinstance(row.get(key), str) and row[key].strip() for key in _CHECKED_BY
    ):
        raise BadRow("missing answer")
    return kind, row


def conversation(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a supervised row, prompt and completion joined.

    Raises:
        BadRow: A role is unknown or out of order, a text is missing or empty, or nobody answers.
    """
    if "messages" in row:
        messages = check_messages(row["messages"])
        if not any(message["role"] == "assistant" for message in messages):
            raise BadRow("no assistant turn")
        return messages
    return check_messages([*_prompt(row.get("prompt")), *_answer(row.get("completion"), "answer")])


def prompt_messages(row: Mapping[str, Any]) -> list[Message]:
    """The messages up to the last of a user: what a model is to answer.

    Raises:
        BadRow: There is none.
    """
    if "prompt" in row:
        return _prompt(row["prompt"])
    messages = conversation(row)
    return messages[: max(i for i, m in enumerate(messages) if m["role"] == "user") + 1]


def check_messages(messages: Any) -> list[Message]:
    """A list of messages, as it is, after checking it.

    A system message comes first if at all; users and assistants take turns, a user begins; a turn
    may call one tool (`tool_calls` in the form of OpenAI), whose result follows.

    Raises:
        BadRow: It is not so.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRow("no messages")
    before = "start"
    allowed = {
        "start": ("system", "user"),
        "system": ("user",),
        "user": ("assistant",),
        "assistant": ("user",),
        "calls": ("tool",),
        "tool": ("assistant",),
    }
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadRow("unknown role")
        role, content = message["role"], message.get("content")
        if role not in allowed[before]:
            raise BadRow("broken role order")
        calls = bool(message.get("tool_calls"))
        if calls:
            _check_calls(role, message["tool_calls"])
        if not isinstance(content, str):
            raise BadRow("content is no text")
        if role != "system" and not content.strip() and not calls:
            raise BadRow(f"empty {role} turn")
        before = "calls" if calls else role
    if before == "calls":
        raise BadRow("a tool call without its result")
    return messages


def _check_calls(role: str, calls: Any) -> None:
    call = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    function = call.get("function") if isinstance(call, dict) else None
    if role != "assistant" or not isinstance(function, dict):
        raise BadRow("not one tool call of an assistant")
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL.fullmatch(name):
        raise BadRow("a tool call without a name")
    if not isinstance(function.get("arguments"), str | dict):
        raise BadRow("a tool call without arguments")


def _prompt(value: Any) -> list[Message]:
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise BadRow("missing prompt")
    messages = check_messages(value)
    if messages[-1]["role"] not in ("user", "tool"):
        raise BadRow("the prompt does not end with a user")
    return messages


def _answer(value: Any, name: str) -> list[Message]:
    if isinstance(value, str):
        value = [{"role": "assistant", "content": value}]
    if not isinstance(value, list) or not value:
        raise BadRow("missing answer" if name == "answer" else f"missing {name}")
    if not isinstance(value[0], dict) or value[0].get("role") != "assistant":
        raise BadRow("the answer is not an assistant's")
    # Checked behind a question, since messages alone must not begin with an answer.
    return check_messages([{"role": "user", "content": "?"}, *value])[1:]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- other forms ---------------------------------------------------------------------------

_TURN = re.compile(r"\s*\[INS(?:T)?\](?P<user>.*?)\[/INS(?:T)?\](?P<assistant>.*)", re.DOTALL)
_SYSTEM = re.compile(r"\s*<<SYS>>(?P<system>.*?)<</SYS>>(?P<rest>.*)", re.DOTALL)


def imported(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the forms of Alpaca (`instruction, input, output`) or of Llama 2 (`text` with
    `[INST] … [/INST]`, or `[INS]`) as messages; any other row as it is.

    Raises:
        BadRow: The text has `[INST]` but not the form.
    """
    if "instruction" in row and "output" in row:
        asked = row["instruction"]
        if row.get("input"):
            asked = f"{asked}\n\n{row['input']}"
        rest = {k: v for k, v in row.items() if k not in ("instruction", "input", "output")}
        return {**rest, "prompt": asked, "completion": row["output"]}
    text = row.get("text")
    if isinstance(text, str) and re.search(r"\[INST?\]", text):
        rest = {k: v for k, v in row.items() if k != "text"}
        return {**rest, "messages": from_inst(text)}
    return row


def from_inst(text: str) -> list[Message]:
    """The messages of a text in the form `[INST] question [/INST] answer </s>`, turn after turn;
    `<<SYS>> … <</SYS>>` in the first question is the system's.

    Raises:
        BadRow: The marks do not pair.
    """
    messages: list[Message] = []
    pieces = re.split(r"(?=\[INST?\])", text.replace("<s>", ""))
    if pieces[0].strip():
        raise BadRow("text before the first [INST]")
    for piece in pieces[1:]:
        turn = _TURN.fullmatch(piece)
        if turn is None:
            raise BadRow("[INST] without [/INST]")
        user, assistant = turn["user"], turn["assistant"].replace("</s>", "").strip()
        system = _SYSTEM.fullmatch(user)
        if system is not None and not messages:
            messages.append({"role": "system", "content": system["system"].strip()})
            user = system["rest"]
        messages.append({"role": "user", "content": user.strip()})
        messages.append({"role": "assistant", "content": assistant})
    return messages


# --- sameness ------------------------------------------------------------------------------


def row_text(row: Mapping[str, Any]) -> str:
    """All texts of a row in order, for finding duplicates and evaluation items."""
    keys = ("messages", "prompt", "completion", "chosen", "rejected", "answer")
    return "\n".join(text for key in keys for text in _texts(row.get(key)))


def question_text(row: Mapping[str, Any]) -> str:
    """The texts that are asked, without blanks at their ends: what a family is by default."""
    return "\n".join(message["content"].strip() for message in prompt_messages(row))


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [f"{m['role']}: {m['content']}" for m in value if isinstance(m, dict)]
    return []
