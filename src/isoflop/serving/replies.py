"""The bodies of replies, as OpenAI's API has them; not for requests (`protocol.py`)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isoflop.serving.request import TokenScore
from isoflop.serving.vocabulary import Vocabulary

LEAST_LOGPROB = -9999.0
"""JSON has no infinity."""


@dataclass(frozen=True)
class Heading:
    """What all parts of a reply begin with."""

    kind: str
    """`chat.completion`, `text_completion` …"""
    model: str
    fingerprint: str
    """Of the weights."""
    seed: int
    """Asked again with it, the same answer comes."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def document(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """The reply, or a chunk of it."""
        prefix = "chatcmpl" if self.kind.startswith("chat") else "cmpl"
        return {
            "id": f"{prefix}-{self.id}", "object": self.kind, "created": self.created,
            "model": self.model, "system_fingerprint": self.fingerprint, "seed": self.seed,
            "choices": list(choices), **more,
        }  # fmt: skip


@dataclass
class Usage:
    """Tokens read and written."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def document(self) -> dict[str, Any]:
        """As OpenAI counts."""
        return {
            "prompt_tokens": self.prompt, "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }  # fmt: skip


def event(document: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)


def completion_logprobs(
    vocabulary: Vocabulary, scores: Sequence[TokenScore], top: int, start: int
) -> dict[str, Any]:
    """The `logprobs` of a text completion.

    Args:
        top: How many likeliest tokens were asked for.
        start: Where in the text the first token begins.
    """
    tops: list[dict[str, float] | None] = [
        None
        if score.logprob is None
        else {vocabulary.spelled(index): finite(value) for index, value in score.top}
        for score in scores
    ]
    return {
        "tokens": [vocabulary.spelled(score.id) for score in scores],
        "token_logprobs": [
            None if score.logprob is None else finite(score.logprob) for score in scores
        ],
        "top_logprobs": tops if top else None,
        "text_offset": vocabulary.offsets([score.id for score in scores], start),
    }


def chat_logprobs(vocabulary: Vocabulary, scores: Sequence[TokenScore]) -> dict[str, Any]:
    """The `logprobs` of a chat completion."""

    def one(index: int, logprob: float) -> dict[str, Any]:
        shown = vocabulary.bytes_shown(index)
        return {
            "token": vocabulary.spelled(index), "logprob": finite(logprob), "bytes": [*shown],
        }  # fmt: skip

    return {
        "content": [
            {
                **one(score.id, score.logprob or 0.0),
                "top_logprobs": [one(index, value) for index, value in score.top],
            }
            for score in scores
        ],
        "refusal": None,
    }
