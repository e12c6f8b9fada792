"""Replies of `/v1/completions`, whole or as a stream; not what is asked (`reading.py`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from isoflop.serving.protocol import CompletionBody
from isoflop.serving.replies import DONE, Heading, Usage, completion_logprobs, event
from isoflop.serving.request import Output, Request, TokenScore
from isoflop.serving.service import Service
from isoflop.serving.worker import Answers


@dataclass
class Gathered:
    """One answer, put together from its news."""

    parts: list[str] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    last: Output | None = None

    def add(self, output: Output) -> None:
        """Note news."""
        self.parts.append(output.text)
        self.scores += output.tokens
        self.last = output

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.parts)


async def gather(service: Service, answers: Answers) -> list[list[Gathered]]:
    """All answers to each request, when they have ended."""
    watch = service.metrics.watch()
    found = [[Gathered() for _ in range(request.n)] for request in answers.requests]
    async for place, output in answers:
        watch.see(place, output)
        found[place][output.choice].add(output)
    return found


def add_usage(usage: Usage, request: Request, output: Output) -> None:
    """Count an answer that has ended; a prompt counts once for all its answers."""
    usage.completion += output.n_new
    if output.choice == 0:
        usage.prompt += len(request.prompt)
        usage.cached += output.n_cached


def heading_of(service: Service, kind: str, requests: Sequence[Request]) -> Heading:
    """What a reply begins with."""
    seed = requests[0].sampling.seed
    return Heading(kind, service.name, f"sha256-{service.sha256[:16]}", seed)


async def whole(
    service: Service, body: CompletionBody, requests: Sequence[Request], answers: Answers
) -> dict[str, Any]:
    """The reply in one document."""
    found = await gather(service, answers)
    usage = Usage()
    choices = []
    for place, (request, group) in enumerate(zip(requests, found, strict=True)):
        echoed = echo_of(service, body, request, place)
        for number, one in enumerate(group):
            if one.last is None:
                continue
            add_usage(usage, request, one.last)
            logprobs = None
            if request.logprobs is not None:
                scores = [*one.last.prompt_tokens, *one.scores]
                start = 0 if one.last.prompt_tokens else len(echoed)
                logprobs = completion_logprobs(service.vocabulary, scores, request.logprobs, start)
            choices.append(
                {
                    "index": place * request.n + number,
                    "text": echoed + one.text,
                    "logprobs": logprobs,
                    "finish_reason": one.last.finish,
                }
            )
    heading = heading_of(service, "text_completion", requests)
    return heading.document(choices, usage=usage.document())


async def stream(
    service: Service, body: CompletionBody, requests: Sequence[Request], answers: Answers
) -> AsyncIterator[bytes]:
    """The reply as server-sent events; left early, it stops the answers."""
    heading = heading_of(service, "text_completion", requests)
    usage, watch = Usage(), service.metrics.watch()
    told: dict[int, int] = {}
    try:
        async for place, output in answers:
            watch.see(place, output)
            request = requests[place]
            index = place * request.n + output.choice
            text = output.text
            if index not in told:
                text = echo_of(service, body, request, place) + text
            logprobs = None
            if request.logprobs is not None and output.tokens:
                logprobs = completion_logprobs(
                    service.vocabulary, output.tokens, request.logprobs, told.get(index, 0)
                )
            told[index] = told.get(index, 0) + len(text)
            if output.finish is not None:
                add_usage(usage, request, output)
            choice = {
                "index": index, "text": text, "logprobs": logprobs,
                "finish_reason": output.finish,
            }  # fmt: skip
            yield event(heading.document([choice]))
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event(heading.document([], usage=usage.document()))
        yield DONE
    finally:
        answers.cancel()


def echo_of(service: Service, body: CompletionBody, request: Request, place: int) -> str:
    """The prompt as it is put before its answers."""
    if not body.echo:
        return ""
    if isinstance(body.prompt, str):
        return body.prompt
    one = body.prompt[place] if place < len(body.prompt) else ""
    return one if isinstance(one, str) else service.vocabulary.decode(request.prompt)
