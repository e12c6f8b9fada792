"""Tools that the server runs: what they give, who may ask for them, and how a reply goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from isoflop.alignment.chat import CHATML
from isoflop.core.errors import RecipeError
from isoflop.core.sandbox import protections
from isoflop.serving import builtin_tools
from isoflop.serving.builtin_tools import check_allowed, run_tool
from isoflop.serving.request import Output, Request
from isoflop.serving.tool_calls import TURN_MARK

Serving = Callable[..., AbstractContextManager[Any]]
contained = pytest.mark.skipif(
    not {"landlock", "seccomp"} <= set(protections()), reason="nothing contains programs here"
)
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "What is 2/3 of 12?"}]}
CALL = f'{TURN_MARK}calculator\n{{"expression": "2/3*12"}}'


@pytest.fixture(scope="module")
def tool_model(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template knows tools."""
    out = tmp_path_factory.mktemp("tools") / "tiny-model"
    shutil.copytree(model_dir, out)
    (out / "chat_template.jinja").write_text(CHATML)
    return out


class Scripted:
    """Answers in place of the engine's, in turn, each in pieces of three characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.asked = list(texts), []  # type: ignore[var-annotated]

    def __call__(self, requests: Sequence[Request]) -> Scripted:
        (request,) = requests
        self.asked.append(request)
        self.requests = requests
        return self

    async def __aiter__(self) -> AsyncIterator[tuple[int, Output]]:
        text = self.texts[len(self.asked) - 1]
        for at in range(0, len(text), 3):
            yield 0, Output(0, text[at : at + 3], n_new=at + 3)
        yield 0, Output(0, "", finish="stop", n_new=len(text))

    def cancel(self) -> None:
        """Nothing goes on by itself."""


def streamed(raw: str) -> tuple[str, list[dict[str, Any]], list[Any], str | None]:
    """What a stream said, ran, called, and how it ended."""
    said, runs, calls, finish = "", [], [], None
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line]
    assert lines[-1] == "[DONE]"
    for line in lines[:-1]:
        for choice in json.loads(line)["choices"]:
            delta = choice["delta"]
            said += delta.get("content") or ""
            runs += delta.get("tool_runs", [])
            calls += delta.get("tool_calls", [])
            finish = choice["finish_reason"] or finish
    return said, runs, calls, finish


# --- the tools -------------------------------------------------------------------------------


def test_the_calculator_gives_exact_values_and_says_what_it_cannot() -> None:
    assert run_tool("calculator", '{"expression": "0.1 + 0.2"}').result == "0.3"
    for arguments in ("{}", "[]", "not JSON", '{"expression": "1/0"}', '{"expression": 3}',
                      "[" * 100_000, '{"expression": "__import__(\'os\')"}'):  # fmt: skip
        assert run_tool("calculator", arguments).result.startswith("error: ")


@contained
def test_python_runs_without_network_files_or_end() -> None:
    def run(program: str) -> str:
        return run_tool("python", json.dumps({"program": program})).result

    assert run("print(sum(range(10)))") == "45\n"
    assert run("print(1)\n1/0") == "1\n\nerror: ZeroDivisionError: division by zero"
    assert "error" in run("print(open('/etc/passwd').read())")
    assert "error" in run("import socket; socket.create_connection(('127.0.0.1', 80))")
    assert "error" in run("import subprocess; subprocess.run(['ls'])")
    assert len(run("print('x' * 5000)")) == builtin_tools.MOST_RESULT
    assert run_tool("python", "{}").result.startswith("error: ")


def test_a_server_does_not_start_with_python_where_nothing_contains_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builtin_tools, "protections", lambda: ("limits", "audit"))
    check_allowed(["calculator"])
    with pytest.raises(RecipeError, match="no landlock and no seccomp"):
        check_allowed(["calculator", "python"])


# --- replies ---------------------------------------------------------------------------------


def test_a_call_is_run_and_the_reply_goes_on(serving: Serving, tool_model: Path) -> None:
    body = {**ASK, "tools": [{"type": "calculator"}], "max_tokens": 100}
    with serving(tool_model) as served:
        for stream in (False, True):
            script = Scripted([f"I ask.{CALL}", "It is 8."])
            served.service.worker.submit = script
            status, said, _ = served.ask("/v1/chat/completions", {**body, "stream": stream})
            assert status == 200
            wanted = {"name": "calculator", "arguments": '{"expression": "2/3*12"}', "result": "8"}
            if stream:
                assert streamed(said) == ("I ask.It is 8.", [wanted], [], "stop")
            else:
                (choice,) = said["choices"]
                assert choice["message"]["content"] == "It is 8."
                assert choice["message"]["tool_runs"] == [wanted]
                assert choice["finish_reason"] == "stop"
                assert said["usage"]["completion_tokens"] == len(f"I ask.{CALL}") + len("It is 8.")
            read = served.service.vocabulary.decode(script.asked[1].prompt)
            assert "assistant\nI ask.<|im_start|>calculator\n" in read
            assert read.endswith("<|im_start|>tool\n8<|im_end|>\n<|im_start|>assistant\n")
            first, second = script.asked
            assert second.max_new_tokens == first.max_new_tokens - len(f"I ask.{CALL}")


def test_calls_of_the_clients_tools_are_passed_on(serving: Serving, tool_model: Path) -> None:
    own = {"type": "function", "function": {"name": "weather"}}
    body = {**ASK, "tools": [{"type": "calculator"}, own], "max_tokens": 100}
    with serving(tool_model) as served:
        for stream in (False, True):
            script = Scripted([CALL, f'{TURN_MARK}weather\n{{"city": "北京"}}'])
            served.service.worker.submit = script
            _, said, _ = served.ask("/v1/chat/completions", {**body, "stream": stream})
            if stream:
                _, runs, calls, finish = streamed(said)
            else:
                (choice,) = said["choices"]
                calls, finish = choice["message"]["tool_calls"], choice["finish_reason"]
                runs = choice["message"]["tool_runs"]
            assert ([run["result"] for run in runs], finish) == (["8"], "tool_calls")
            assert [call["function"]["name"] for call in calls] == ["weather"]


def test_a_model_that_never_stops_calling_is_stopped(serving: Serving, tool_model: Path) -> None:
    body = {**ASK, "tools": [{"type": "calculator"}]}
    call = f'{TURN_MARK}calculator\n{{"expression": "1"}}'
    with serving(tool_model) as served:
        script = Scripted([call] * 20)
        served.service.worker.submit = script
        status, said, _ = served.ask("/v1/chat/completions", body)
        # Either as many runs as may be, or the conversation no longer fits the model.
        assert len(script.asked) <= builtin_tools.MOST_RUNS + 1
        if status == 200:
            assert said["choices"][0]["finish_reason"] == "tool_calls"
        else:
            assert said["error"]["code"] == "context_length_exceeded"
        script = Scripted([call] * 20)
        served.service.worker.submit = script
        _, raw, _ = served.ask("/v1/chat/completions", {**body, "stream": True})
        assert raw.endswith("data: [DONE]\n\n")


def test_python_is_refused_unless_the_operator_allows_it(
    serving: Serving, tool_model: Path
) -> None:
    with serving(tool_model) as served:
        for changes, said in (
            ({"tools": [{"type": "python"}]}, "--tools python"),
            ({"tools": [{"type": "calculator"}], "n": 2}, "n = 1"),
            ({"tools": [{"type": "shell"}]}, "tools"),
            (
                {"tools": [{"type": "calculator"},
                           {"type": "function", "function": {"name": "calculator"}}]},
                "a tool of the server and of the request",
            ),
        ):  # fmt: skip
            status, error, _ = served.ask("/v1/chat/completions", {**ASK, **changes})
            assert status == 400
            assert said in error["error"]["message"]


@contained
def test_python_runs_where_it_is_allowed(serving: Serving, tool_model: Path) -> None:
    body = {**ASK, "tools": [{"type": "python"}]}
    with serving(tool_model, tools=("calculator", "python")) as served:
        program = json.dumps({"program": "print(6 * 7)"})
        served.service.worker.submit = Scripted([f"{TURN_MARK}python\n{program}", "42."])
        _, said, _ = served.ask("/v1/chat/completions", body)
        assert said["choices"][0]["message"]["tool_runs"][0]["result"] == "42\n"


def test_results_that_no_filter_has_read_are_not_shown_under_one(
    serving: Serving, tool_model: Path
) -> None:
    with serving(tool_model, safety="block") as served:
        served.service.worker.submit = Scripted([CALL, "8"])
        _, said, _ = served.ask("/v1/chat/completions", {**ASK, "tools": [{"type": "calculator"}]})
        (run,) = said["choices"][0]["message"]["tool_runs"]
        assert set(run) == {"name", "arguments"}
