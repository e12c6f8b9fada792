"""Bodies of requests as what the engine is asked; refuses what this model cannot do.

Not for the form of bodies (`protocol.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.serving.builtin_tools import SPECIFICATIONS
from isoflop.serving.protocol import (
    MOST_PROMPTS,
    BuiltinToolBody,
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    JsonFormat,
    Message,
    Prompt,
    SamplingBody,
    SchemaFormat,
    Tool,
)
from isoflop.serving.refusals import Refusal
from isoflop.serving.request import Request
from isoflop.serving.sampler import Sampling
from isoflop.serving.service import Service
from isoflop.serving.tool_calls import TURN_MARK
from isoflop.serving.worker import Answers, Busy

RETRY_SECONDS = 1
DEFAULT_COMPLETION_TOKENS = 16
"""Of a text completion that names no number, as OpenAI has it."""


def check_model(service: Service, name: str | None) -> None:
    """Refuse a model that is not served here."""
    if name is not None and name != service.name:
        message = f"The model '{name}' does not exist; this server has '{service.name}'"
        raise Refusal(404, message, param="model", code="model_not_found")


def submit(service: Service, asked: Sequence[Request]) -> Answers:
    """Begin to answer requests; refuse them while the queue is full."""
    try:
        return service.worker.submit(asked)
    except Busy as error:
        raise Refusal(
            429, f"The server is busy: {error}", code="queue_full", retry_after=RETRY_SECONDS
        ) from None


def completion_requests(service: Service, body: CompletionBody) -> list[Request]:
    """A request for each prompt of a text completion."""
    check_model(service, body.model)
    n = body.n or 1
    if body.best_of not in (None, n):
        raise Refusal(400, "best_of must equal n: answers are not ranked", param="best_of")
    if body.stream and body.echo and body.logprobs is not None:
        raise Refusal(400, "echo with logprobs cannot be streamed", param="stream")
    prompts = prompt_ids(service, body.prompt, "prompt")
    most = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if most == 0 and not body.echo:
        raise Refusal(400, "max_tokens = 0 goes with echo alone", param="max_tokens")
    sampling = _sampling(service, body)
    ends = frozenset() if body.ignore_eos else service.end_ids
    return [
        _checked(
            service,
            Request(
                prompt=tuple(prompt), max_new_tokens=most, sampling=sampling, n=n,
                first_choice=index * n, stop=_stops(body),
                stop_ids=ends | set(body.stop_token_ids or ()), logprobs=body.logprobs,
                prompt_logprobs=body.echo and body.logprobs is not None, guard=service.guard(),
                **_beams(body),
            ),
        )
        for index, prompt in enumerate(prompts)
    ]  # fmt: skip


def chat_request(
    service: Service, body: ChatBody, later: Sequence[Mapping[str, Any]] = (), spent: int = 0
) -> Request:
    """The request of a chat completion.

    Args:
        later: Turns since the body's: calls that the server ran, and their results.
        spent: Tokens of the answer that went into them.
    """
    check_model(service, body.model)
    if body.top_logprobs is not None and not body.logprobs:
        raise Refusal(400, "top_logprobs needs logprobs = true", param="top_logprobs")
    if body.max_tokens == 0:
        raise Refusal(400, "max_tokens must be at least 1", param="max_tokens")
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise Refusal(400, "max_tokens and max_completion_tokens are one thing; give one",
                      param="max_tokens")  # fmt: skip
    _check_tools(service, body)
    _, prompt = rendered(service, body.messages, body, later)
    room = service.engine.max_seq_len - len(prompt)
    asked = body.max_tokens if body.max_tokens is not None else body.max_completion_tokens
    if asked is not None:
        asked = max(1, asked - spent)
    ends = frozenset() if body.ignore_eos else service.end_ids | service.template.stop_ids
    ends |= set(body.stop_token_ids or ())
    visible: dict[int, bytes] = {}
    mark = service.vocabulary.special_ids.get("<|im_start|>")
    if uses_tools(body) and service.template.calls_by_turn and mark is not None:
        visible[mark] = TURN_MARK.encode()
    grammar = None
    if isinstance(body.response_format, JsonFormat | SchemaFormat):
        try:
            schema = body.response_format.json_schema.schema_ if isinstance(
                body.response_format, SchemaFormat
            ) else None  # fmt: skip
            grammar = service.grammar(schema)
        except RecipeError as error:
            raise Refusal(400, error.what, param="response_format") from None
    return _checked(
        service,
        Request(
            prompt=tuple(prompt), max_new_tokens=max(1, room) if asked is None else asked,
            sampling=_sampling(service, body), n=body.n or 1, stop=_stops(body), stop_ids=ends,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            grammar=grammar, guard=service.guard(), visible=visible, **_beams(body),
        ),
    )  # fmt: skip


def uses_tools(body: ChatBody) -> bool:
    """Whether calls of tools are looked for in the answer."""
    return bool(body.tools) and body.tool_choice != "none"


def builtin_tools(body: ChatBody) -> frozenset[str]:
    """Names of the tools that the server is to run."""
    if not uses_tools(body):
        return frozenset()
    return frozenset(t.type for t in body.tools or () if isinstance(t, BuiltinToolBody))


def _check_tools(service: Service, body: ChatBody) -> None:
    """Refuse tools that this server does not run, and what does not go with running any."""
    builtin = builtin_tools(body)
    for name in sorted(builtin - set(service.settings.tools)):
        raise Refusal(
            400, f"This server does not run the tool '{name}'; its operator may allow it with "
            f"--tools {name}", param="tools", code="tool_not_allowed",
        )  # fmt: skip
    if builtin and (body.n or 1) != 1:
        raise Refusal(400, "tools that the server runs go with n = 1", param="n")
    if builtin and body.response_format is not None:
        raise Refusal(400, "tools that the server runs do not go with response_format",
                      param="response_format")  # fmt: skip
    for tool in body.tools or ():
        if isinstance(tool, Tool) and tool.function.name in builtin:
            raise Refusal(400, f"'{tool.function.name}' is a tool of the server and of the request",
                          param="tools")  # fmt: skip


def rendered(
    service: Service,
    messages: Sequence[Message],
    body: ChatBody | None = None,
    later: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, list[int]]:
    """A conversation as the model reads it, as text and as ids.

    Args:
        later: Turns to append, in the form of templates.
    """
    tools: list[dict[str, Any]] = []
    if body is not None and body.tools:
        if not service.template.knows_tools:
            raise Refusal(400, "The model's chat template knows no tools", param="tools")
        if uses_tools(body):
            tools = [
                SPECIFICATIONS[tool.type]
                if isinstance(tool, BuiltinToolBody)
                else tool.model_dump(exclude_none=True)
                for tool in body.tools
            ]
    turns = [*(plain_message(each) for each in messages), *later]
    try:
        return service.template.render(turns, tools)
    except RecipeError as error:
        raise Refusal(400, error.what, param="messages") from None


def plain_message(message: Message) -> dict[str, Any]:
    """A message as templates expect it: content as one text."""
    plain = message.model_dump(exclude_none=True)
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    plain["content"] = content or ""
    if plain["role"] == "developer":  # OpenAI's newer name for the same
        plain["role"] = "system"
    return plain


def embedding_requests(service: Service, body: EmbeddingBody) -> list[Request]:
    """A request for each text to be embedded."""
    check_model(service, body.model)
    prompts = prompt_ids(service, body.input, "input")
    return [_checked(service, Request(tuple(ids), 0, embed=True)) for ids in prompts]


def prompt_ids(service: Service, prompt: Prompt, param: str) -> list[list[int]]:
    """The ids of each prompt; special tokens that a text names are read as such."""
    single = isinstance(prompt, str) or (prompt and isinstance(prompt[0], int))
    many: Sequence[Any] = [prompt] if single else prompt
    if not 0 < len(many) <= MOST_PROMPTS:
        raise Refusal(400, f"{param} must hold 1 to {MOST_PROMPTS} prompts", param=param)
    ids = [
        service.vocabulary.encode(one, special=True) if isinstance(one, str) else list(one)
        for one in many
    ]
    # Nothing to continue: begin a document, as in training.
    return [each or [service.vocabulary.tokenizer.eos_id] for each in ids]


def _sampling(service: Service, body: SamplingBody) -> Sampling:
    bias: dict[int, float] = {}
    for key, value in (body.logit_bias or {}).items():
        if not key.isascii() or not key.isdigit() or int(key) >= service.engine.vocab_size:
            raise Refusal(400, f"logit_bias: {key!r} is no token id", param="logit_bias")
        bias[int(key)] = value
    given: Mapping[str, Any] = {
        "temperature": body.temperature, "top_p": body.top_p, "min_p": body.min_p,
        "top_k": None if body.top_k is None else max(0, body.top_k),
        "presence_penalty": body.presence_penalty, "frequency_penalty": body.frequency_penalty,
        "repetition_penalty": body.repetition_penalty,
        "seed": secrets.randbits(48) if body.seed is None else body.seed,
    }  # fmt: skip
    return Sampling(
        **{key: value for key, value in given.items() if value is not None}, logit_bias=bias
    )


def _beams(body: SamplingBody) -> dict[str, Any]:
    if body.beam_width is None and body.length_penalty is not None:
        raise Refusal(400, "length_penalty goes with beam_width", param="length_penalty")
    penalty = 1.0 if body.length_penalty is None else body.length_penalty
    return {"beams": body.beam_width or 0, "length_penalty": penalty}


def _stops(body: SamplingBody) -> tuple[str, ...]:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if any(not stop or len(stop) > 1000 for stop in stops):
        raise Refusal(400, "a stop string must have 1 to 1,000 characters", param="stop")
    return stops


def _checked(service: Service, request: Request) -> Request:
    problem = service.engine.problem(request)
    if problem is not None:
        raise Refusal(
            400, problem, code="context_length_exceeded" if "context" in problem else None
        )
    return request
