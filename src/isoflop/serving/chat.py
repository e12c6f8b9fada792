"""Replies of `/v1/chat/completions`, whole or as a stream; not what is asked (`reading.py`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from isoflop.serving.completions import add_usage, gather, heading_of
from isoflop.serving.protocol import ChatBody
from isoflop.serving.reading import uses_tools
from isoflop.serving.replies import DONE, Usage, chat_logprobs, event
from isoflop.serving.request import Request
from isoflop.serving.service import Service
from isoflop.serving.tool_calls import CallFinder
from isoflop.serving.worker import Answers


async def whole(
    service: Service, body: ChatBody, request: Request, answers: Answers
) -> dict[str, Any]:
    """The reply in one document."""
    (group,) = await gather(service, answers)
    usage = Usage()
    choices = []
    for number, one in enumerate(group):
        if one.last is None:
            continue
        add_usage(usage, request, one.last)
        message: dict[str, Any] = {"role": "assistant", "content": one.text}
        finish: str | None = one.last.finish
        if uses_tools(body):
            finder = CallFinder(service.template.calls_by_tag)
            said, calls = finder.push(one.text)
            rest, more = finder.finish()
            message["content"] = said + rest
            if calls + more:
                message["tool_calls"] = [call.document() for call in calls + more]
                message["content"] = message["content"] or None
                finish = "tool_calls" if finish == "stop" else finish
        logprobs = None
        if request.logprobs is not None:
            logprobs = chat_logprobs(service.vocabulary, one.scores)
        choices.append(
            {"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish}
        )
    heading = heading_of(service, "chat.completion", [request])
    return heading.document(choices, usage=usage.document())


async def stream(
    service: Service, body: ChatBody, request: Request, answers: Answers
) -> AsyncIterator[bytes]:
    """The reply as server-sent events; left early, it stops the answers."""
    heading = heading_of(service, "chat.completion.chunk", [request])
    usage, watch = Usage(), service.metrics.watch()
    begun: set[int] = set()
    finders = {
        choice: CallFinder(service.template.calls_by_tag)
        for choice in (range(request.n) if uses_tools(body) else ())
    }

    def chunk(choice: int, delta: dict[str, Any], **more: Any) -> bytes:
        said = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return event(heading.document([said]))

    try:
        async for place, output in answers:
            watch.see(place, output)
            choice, text = output.choice, output.text
            if choice not in begun:
                begun.add(choice)
                yield chunk(choice, {"role": "assistant", "content": ""})
            calls: list[dict[str, Any]] = []
            finish: str | None = output.finish
            if choice in finders:
                finder = finders[choice]
                before = finder.n_calls
                text, found = finder.push(text)
                if output.finish is not None:
                    rest, more = finder.finish()
                    text, found = text + rest, found + more
                calls = [call.document(before + i) for i, call in enumerate(found)]
                finish = "tool_calls" if finder.n_calls and finish == "stop" else finish
            logprobs = chat_logprobs(service.vocabulary, output.tokens) if output.tokens else None
            if text or logprobs:
                yield chunk(choice, {"content": text}, logprobs=logprobs)
            if calls:
                yield chunk(choice, {"tool_calls": calls})
            if output.finish is not None:
                add_usage(usage, request, output)
                yield chunk(choice, {}, finish_reason=finish)
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event(heading.document([], usage=usage.document()))
        yield DONE
    finally:
        answers.cancel()
