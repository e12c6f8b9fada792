"""Calls are found in any cuts of the text, and what is no call stays text."""

from __future__ import annotations

import json
import random

import pytest

from isoflop.serving.tool_calls import TURN_MARK, CallFinder, FoundCall

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "中": "<x>"}}\n</tool_call>'
TEXTS = [
    ("no call < at all <tool", "no call < at all <tool", []),
    (f"I add.\n{ADD}", "I add.\n", ["add"]),
    (f"{ADD}\n{ADD.replace('add', 'sub')}done", "done", ["add", "sub"]),
    ("<tool_call>not JSON</tool_call>!", "<tool_call>not JSON</tool_call>!", []),
    ('a<tool_call>{"name": "open", "arguments": {}}', "a", ["open"]),
]


def found(by_tag: bool, text: str, draw: random.Random) -> tuple[str, list[FoundCall]]:
    finder = CallFinder(by_tag)
    said, calls = "", []
    while text:
        size = draw.choice([1, 1, 2, 5, 30])
        more, new = finder.push(text[:size])
        said, calls, text = said + more, calls + new, text[size:]
    more, new = finder.finish()
    assert finder.n_calls == len(calls + new)
    return said + more, calls + new


@pytest.mark.parametrize(("text", "said", "names"), TEXTS)
def test_calls_in_tags_are_found_in_any_cuts(text: str, said: str, names: list[str]) -> None:
    for seed in range(40):
        got, calls = found(True, text, random.Random(seed))
        assert (got, [call.name for call in calls]) == (said, names)
        assert all(isinstance(json.loads(call.arguments), dict) for call in calls)


def test_a_call_at_the_end_of_a_turn_is_found_in_any_cuts() -> None:
    text = f'Let me see.{TURN_MARK}calculator\n{{"expression": "1 + 2"}}'
    for seed in range(40):
        said, (call,) = found(False, text, random.Random(seed))
        assert (said, call.name) == ("Let me see.", "calculator")
        assert json.loads(call.arguments) == {"expression": "1 + 2"}
    assert found(False, f"a{TURN_MARK}b\nnot JSON", random.Random(0)) == ("ab\nnot JSON", [])


def test_a_call_is_told_as_openai_tells_it() -> None:
    said = FoundCall("add", "{}").document(2)
    assert said["index"] == 2
    assert said["id"].startswith("call_")
    assert said["function"] == {"name": "add", "arguments": "{}"}
