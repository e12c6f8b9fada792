"""The bodies of requests, as OpenAI's API has them; what is not named here is refused by name.

Not for replies (`replies.py`). Beyond OpenAI's parameters there are vLLM's `top_k`, `min_p`,
`repetition_penalty`, `stop_token_ids` and `ignore_eos`, and our own `beam_width` and
`length_penalty`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from isoflop.serving.settings import BuiltinTool

MOST_ANSWERS, MOST_TOP, MOST_STOPS, MOST_PROMPTS = 16, 20, 16, 256

Tokens: TypeAlias = list[Annotated[int, Field(ge=0, le=2**31 - 1)]]
Prompt: TypeAlias = str | Tokens | list[str] | list[Tokens]
Stop: TypeAlias = str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None
Count: TypeAlias = Annotated[int, Field(ge=1, le=MOST_ANSWERS)]
Top: TypeAlias = Annotated[int, Field(ge=0, le=MOST_TOP)]


def _written(value: dict[str, Any]) -> dict[str, Any]:
    """The value, if it can be written as JSON again: without infinities.

    Raises:
        ValueError: It cannot.
    """
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


JsonObject: TypeAlias = Annotated[dict[str, Any], AfterValidator(_written)]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Body(BaseModel):
    """Base of all bodies: strict types, no unknown names."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Body):
    """What a stream ends with."""

    include_usage: bool = False


class SamplingBody(Body):
    """What completions and chat completions share."""

    model: str | None = None
    """This server has one model: a request that names none means it, one that names another is
    refused."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Seed | None = None
    n: Count | None = None
    beam_width: Count | None = None
    """Search for the likeliest answers with so many beams; the `n` best are told at the end."""
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = None
    """Beam search ranks by log-probability / length^penalty; 1 when None."""
    stop: Stop = None
    stop_token_ids: Tokens | None = None
    ignore_eos: bool = False
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Written to the audit log where there is one; of no other use."""


class CompletionBody(SamplingBody):
    """`POST /v1/completions`."""

    prompt: Prompt
    echo: bool = False
    logprobs: Top | None = None
    best_of: Count | None = None
    """Must equal `n`: answers are not ranked here."""


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class CalledFunction(Body):
    """What a call calls."""

    name: str
    arguments: str


class Call(Body):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Body):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    refusal: None = None
    """In messages that OpenAI's client copies from a reply."""


class FunctionSpec(Body):
    """A function that may be called."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: JsonObject | None = None


class Tool(Body):
    """A tool that may be called."""

    type: Literal["function"]
    function: FunctionSpec


class BuiltinToolBody(Body):
    """A tool that the server runs itself."""

    type: BuiltinTool


class JsonSchema(Body):
    """The schema of a `response_format`."""

    name: str
    schema_: Annotated[JsonObject, Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JsonFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | None = None
    tools: list[Tool | BuiltinToolBody] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: Literal[True] | None = None


class EmbeddingBody(Body):
    """`POST /v1/embeddings`."""

    model: str | None = None
    input: Prompt
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class ModerationBody(Body):
    """`POST /v1/moderations`."""

    input: str | list[str]
    model: str | None = None


class TokenizeBody(Body):
    """`POST /tokenize`: a text with its special tokens, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    return_token_strs: bool = False


class DetokenizeBody(Body):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: Tokens


class FeedbackBody(Body):
    """`POST /feedback`: what a person thinks of an answer."""

    messages: Annotated[list[Message], Field(min_length=1)]
    """The conversation up to the answer."""
    answer: str
    rating: Literal[-1, 0, 1] | None = None
    """Thumb down, none, or up."""
    rejected: str | None = None
    """Another answer to the same conversation, less good than `answer`."""
    edited: str | None = None
    """What the answer should have been."""
    seed: Seed | None = None
    sampling: JsonObject | None = None
    comment: str | None = None
