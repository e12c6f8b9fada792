"""Tools that the server itself runs for a model: a calculator and sandboxed Python.

Not for finding calls in an answer (`tool_calls.py`), nor for tools of the client, whose calls are
passed on to it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from isoflop.core.errors import DataError, RecipeError
from isoflop.core.sandbox import Limits, protections, run_program
from isoflop.data.calculator import calculate
from isoflop.serving.settings import BuiltinTool

MOST_RUNS = 8
"""Calls run for one answer; a further one ends it."""
MOST_RESULT = 2000
"""Characters of a result that the model gets to read."""
PYTHON_LIMITS = Limits(seconds=5.0, memory_bytes=256 * 2**20, output_bytes=64 * 2**10)
NEEDED = ("landlock", "seccomp")
"""What must contain programs before a server runs those that a model wrote for strangers."""

SPECIFICATIONS: Mapping[BuiltinTool, dict[str, Any]] = {
    "calculator": {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "The exact value of an arithmetic expression.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        },
    },
    "python": {
        "type": "function",
        "function": {
            "name": "python",
            "description": "Runs a Python program without network or files; gives what it prints.",
            "parameters": {
                "type": "object",
                "properties": {"program": {"type": "string"}},
                "required": ["program"],
            },
        },
    },
}
"""What the model is told of each, in the form of OpenAI's functions."""


@dataclass(frozen=True)
class ToolRun:
    """A call that the server ran."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""
    result: str
    """What the model got to read; `error: …` where the call failed."""

    def document(self) -> dict[str, str]:
        """As replies show it."""
        return asdict(self)


def check_allowed(tools: Collection[BuiltinTool]) -> None:
    """Refuse to start with Python where nothing contains it.

    Raises:
        RecipeError: Python is to be run, and this system lacks what keeps programs in.
    """
    if "python" not in tools:
        return
    lacking = [name for name in NEEDED if name not in protections()]
    if lacking:
        raise RecipeError(
            f"this system has no {' and no '.join(lacking)}, without which programs that a model "
            "writes are not contained",
            where="--tools python",
            fix="Serve on Linux 5.13 or newer, or without python",
        )


def run_tool(name: str, arguments: str) -> ToolRun:
    """Run a call of a built-in tool; nothing that the model wrote raises."""
    try:
        read = json.loads(arguments)
        if not isinstance(read, dict):
            raise DataError("the arguments are no object")
        result = _calculator(read) if name == "calculator" else _python(read)
    except (json.JSONDecodeError, RecursionError):
        result = "error: the arguments are not JSON"
    except DataError as error:
        result = f"error: {error.what}"
    return ToolRun(name, arguments, result[:MOST_RESULT])


def _calculator(arguments: Mapping[str, Any]) -> str:
    return calculate(_text(arguments, "expression"))


def _python(arguments: Mapping[str, Any]) -> str:
    ran = run_program(_text(arguments, "program"), PYTHON_LIMITS)
    return ran.stdout if ran.ok else f"{ran.stdout}\nerror: {ran.error}".lstrip("\n")


def _text(arguments: Mapping[str, Any], key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str):
        raise DataError(f'give {{"{key}": "…"}}')
    return value
