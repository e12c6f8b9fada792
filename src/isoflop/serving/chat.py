"""Replies of `/v1/chat/completions`, whole or as a stream; not what is asked (`reading.py`).

Where the model calls tools of the server, these are run and it goes on, in the same reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from isoflop.serving.builtin_tools import MOST_RUNS, ToolRun, run_tool
from isoflop.serving.completions import Gathered, add_usage, gather, heading_of
from isoflop.serving.protocol import ChatBody
from isoflop.serving.reading import builtin_tools, chat_request, submit, uses_tools
from isoflop.serving.refusals import Refusal
from isoflop.serving.replies import DONE, Usage, chat_logprobs, event
from isoflop.serving.request import Request
from isoflop.serving.service import Service
from isoflop.serving.tool_calls import CallFinder, FoundCall
from isoflop.serving.worker import Answers


class _ToolTurns:
    """The turns of one reply in which the server runs tools."""

    def __init__(self, service: Service, body: ChatBody) -> None:
        self._service, self._body = service, body
        self._builtin = builtin_tools(body)
        self._later: list[dict[str, Any]] = []
        self._spent = 0
        self.runs: list[ToolRun] = []

    def goes_on(self, calls: Sequence[FoundCall], finish: str | None) -> bool:
        """Whether the calls at the end of a turn are for the server to run: all of them, and not
        more than may be."""
        fits = len(self.runs) + len(calls) <= MOST_RUNS
        return (
            bool(calls) and finish == "stop" and fits and {c.name for c in calls} <= self._builtin
        )

    async def next_request(self, said: str, calls: Sequence[FoundCall], n_new: int) -> Request:
        """Run the calls; the request that goes on from their results.

        Raises:
            Refusal: The conversation no longer fits the model.
        """
        self._spent += n_new
        asked = [call.document() for call in calls]
        self._later.append({"role": "assistant", "content": said, "tool_calls": asked})
        for call, document in zip(calls, asked, strict=True):
            done = await asyncio.to_thread(run_tool, call.name, call.arguments)
            self.runs.append(done)
            self._later.append(
                {"role": "tool", "content": done.result, "name": call.name,
                 "tool_call_id": document["id"]}
            )  # fmt: skip
        return chat_request(self._service, self._body, self._later, self._spent)

    def shown(self, runs: Sequence[ToolRun]) -> list[dict[str, str]]:
        """Runs as replies show them; without results where a filter reads what the model says,
        for it has not read these."""
        hidden = {"result"} if self._service.safety is not None else set()
        return [
            {key: value for key, value in run.document().items() if key not in hidden}
            for run in runs
        ]


async def whole(
    service: Service, body: ChatBody, request: Request, answers: Answers
) -> dict[str, Any]:
    """The reply in one document."""
    usage, turns = Usage(), _ToolTurns(service, body)
    heading = heading_of(service, "chat.completion", [request])
    try:
        while True:
            (group,) = await gather(service, answers)
            choices = []
            following = None
            for number, one in enumerate(group):
                if one.last is None:
                    continue
                add_usage(usage, request, one.last)
                choice, said, calls = _choice(service, body, request, number, one)
                choices.append(choice)
                if turns.goes_on(calls, one.last.finish):
                    following = await turns.next_request(said, calls, one.last.n_new)
            if following is None:
                break
            request = following
            answers = submit(service, [request])
    finally:
        answers.cancel()
    if turns.runs:
        choices[0]["message"]["tool_runs"] = turns.shown(turns.runs)
    return heading.document(choices, usage=usage.document())


def _choice(
    service: Service, body: ChatBody, request: Request, number: int, one: Gathered
) -> tuple[dict[str, Any], str, list[FoundCall]]:
    """A choice of a whole reply, what it says and what it calls."""
    finish: str | None = None if one.last is None else one.last.finish
    said = one.text
    calls: list[FoundCall] = []
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if uses_tools(body):
        finder = CallFinder(service.template.calls_by_tag)
        said, calls = finder.push(one.text)
        rest, more = finder.finish()
        said, calls = said + rest, calls + more
        message["content"] = said
        if calls:
            message["tool_calls"] = [call.document() for call in calls]
            message["content"] = said or None
            finish = "tool_calls" if finish == "stop" else finish
    logprobs = None
    if request.logprobs is not None:
        logprobs = chat_logprobs(service.vocabulary, one.scores)
    choice = {"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish}
    return choice, said, calls


async def stream(
    service: Service, body: ChatBody, request: Request, answers: Answers
) -> AsyncIterator[bytes]:
    """The reply as server-sent events; left early, it stops the answers."""
    heading = heading_of(service, "chat.completion.chunk", [request])
    usage, turns = Usage(), _ToolTurns(service, body)
    begun: set[int] = set()

    def chunk(choice: int, delta: dict[str, Any], **more: Any) -> bytes:
        said = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return event(heading.document([said]))

    try:
        while True:
            watch = service.metrics.watch()
            parts = {choice: _Parts(service, body) for choice in range(request.n)}
            following = None
            async for place, output in answers:
                watch.see(place, output)
                choice, part = output.choice, parts[output.choice]
                if choice not in begun:
                    begun.add(choice)
                    yield chunk(choice, {"role": "assistant", "content": ""})
                text, calls = part.push(output.text, last=output.finish is not None)
                scores = output.tokens
                logprobs = chat_logprobs(service.vocabulary, scores) if scores else None
                if text or logprobs:
                    yield chunk(choice, {"content": text}, logprobs=logprobs)
                if output.finish is None:
                    if calls and not builtin_tools(body):
                        yield chunk(choice, {"tool_calls": part.documents(calls)})
                    continue
                add_usage(usage, request, output)
                if turns.goes_on(part.calls, output.finish):
                    before = len(turns.runs)
                    following = await turns.next_request(part.said, part.calls, output.n_new)
                    yield chunk(choice, {"tool_runs": turns.shown(turns.runs[before:])})
                    continue
                left = part.calls if builtin_tools(body) else calls
                if left:
                    yield chunk(choice, {"tool_calls": part.documents(left)})
                called = part.calls and output.finish == "stop"
                yield chunk(choice, {}, finish_reason="tool_calls" if called else output.finish)
            if following is None:
                break
            request = following
            answers = submit(service, [request])
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event(heading.document([], usage=usage.document()))
        yield DONE
    except Refusal as refusal:  # of a later turn: the status has long been sent
        yield event(refusal.document())
        yield DONE
    finally:
        answers.cancel()


class _Parts:
    """One choice of a stream, parted into what is said and what is called."""

    def __init__(self, service: Service, body: ChatBody) -> None:
        self._finder = CallFinder(service.template.calls_by_tag) if uses_tools(body) else None
        self._shown = 0
        self.said = ""
        self.calls: list[FoundCall] = []

    def push(self, text: str, *, last: bool) -> tuple[str, list[FoundCall]]:
        """What is said and what is called now."""
        found: list[FoundCall] = []
        if self._finder is not None:
            text, found = self._finder.push(text)
            if last:
                rest, more = self._finder.finish()
                text, found = text + rest, found + more
        self.said += text
        self.calls += found
        return text, found

    def documents(self, calls: Sequence[FoundCall]) -> list[dict[str, Any]]:
        """Calls as streams tell them, numbered through the choice."""
        first, self._shown = self._shown, self._shown + len(calls)
        return [call.document(first + i) for i, call in enumerate(calls)]
