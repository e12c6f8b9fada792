"""What OpenAI's own client can ask for, case by case: each is answered in the form it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

TEXTS = [
    "loss",
    "Question: 1 + 1\nAnswer:",
    "中文模型",
    "🙂 emoji",
    "def f():\n    return",
    "\t ",
    "a" * 80,
]
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.7},
    {"top_p": 0.1},
    {"presence_penalty": 2.0},
    {"frequency_penalty": -2.0},
    {"logit_bias": {"65": -100}},
    {"seed": -1},
    {"seed": 2**62},
    {"stop": "e"},
    {"stop": ["e", "中", "\n"]},
    {"n": 3},
    {"max_tokens": 1},
    {"user": "someone"},
    {"extra_body": {"top_k": 3}},
    {"extra_body": {"min_p": 0.2}},
    {"extra_body": {"repetition_penalty": 1.2}},
    {"extra_body": {"ignore_eos": True}},
    {"extra_body": {"stop_token_ids": [5, 6]}},
]
MESSAGES: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}],
    [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hello"}],
    [{"role": "user", "content": [{"type": "text", "text": "in parts"}]}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
    [{"role": "user", "content": "named", "name": "someone"}],
    [{"role": "user", "content": ""}],
    [{"role": "assistant", "content": "it goes on"}],
]
FORMATS: list[dict[str, Any]] = [
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["x", "中", 3]}}},
    {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {
        "type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}}},
]  # fmt: skip


@pytest.fixture(scope="module")
def client(served: Any) -> Any:
    return served.client()


def is_completion(said: Any, n: int) -> None:
    assert said.object == "text_completion"
    assert [choice.index for choice in said.choices] == list(range(n))
    assert {choice.finish_reason for choice in said.choices} <= {"stop", "length"}
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens


@pytest.mark.parametrize("given", SAMPLING, ids=str)
def test_sampling_of_a_completion(client: Any, given: dict[str, Any]) -> None:
    said = client.completions.create(model="tiny", prompt="loss", **{"max_tokens": 8, **given})
    is_completion(said, given.get("n", 1))


@pytest.mark.parametrize("given", SAMPLING, ids=str)
def test_sampling_of_a_chat(client: Any, given: dict[str, Any]) -> None:
    asked = {"max_completion_tokens": 8} if "max_tokens" not in given else {}
    said = client.chat.completions.create(model="tiny", messages=MESSAGES[0], **asked, **given)
    assert said.object == "chat.completion"
    assert len(said.choices) == given.get("n", 1)
    assert all(choice.message.role == "assistant" for choice in said.choices)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("stream", [False, True])
def test_texts_whole_and_streamed(client: Any, text: str, stream: bool) -> None:
    given = {"model": "tiny", "prompt": text, "max_tokens": 6, "seed": 3}
    whole = client.completions.create(**given)
    is_completion(whole, 1)
    if stream:
        parts = client.completions.create(**given, stream=True)
        assert "".join(chunk.choices[0].text for chunk in parts) == whole.choices[0].text


@pytest.mark.parametrize("messages", MESSAGES, ids=lambda m: m[-1]["role"])
@pytest.mark.parametrize("stream", [False, True])
def test_conversations_whole_and_streamed(
    client: Any, messages: list[dict[str, Any]], stream: bool
) -> None:
    given = {"model": "tiny", "messages": messages, "max_tokens": 6, "seed": 3}
    whole = client.chat.completions.create(**given).choices[0].message.content
    if stream:
        parts = client.chat.completions.create(**given, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in parts) == whole


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form["type"])
def test_formats_of_an_answer(client: Any, form: dict[str, Any]) -> None:
    said = client.chat.completions.create(
        model="tiny", messages=MESSAGES[0], response_format=form, max_tokens=200, seed=1
    )
    (choice,) = said.choices
    if form["type"] != "text" and choice.finish_reason == "stop":
        json.loads(choice.message.content)


CHANGES: list[tuple[str, Callable[[Any], Any], type[Exception] | str]] = [
    ("a model that is not here", lambda c: c.completions.create(model="x", prompt="a"),
     "NotFoundError"),
    ("a parameter nobody knows", lambda c: c.completions.create(
        model="tiny", prompt="a", extra_body={"colour": "red"}), "BadRequestError"),
    ("a temperature below 0", lambda c: c.completions.create(
        model="tiny", prompt="a", temperature=-1), "BadRequestError"),
    ("no messages", lambda c: c.chat.completions.create(model="tiny", messages=[]),
     "BadRequestError"),
    ("pictures", lambda c: c.chat.completions.create(model="tiny", messages=[
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
     "BadRequestError"),
    ("sound", lambda c: c.chat.completions.create(
        model="tiny", messages=MESSAGES[0], modalities=["audio"]), "BadRequestError"),
    ("a context too long", lambda c: c.completions.create(
        model="tiny", prompt="a", max_tokens=9999), "BadRequestError"),
    ("moderation that is off", lambda c: c.moderations.create(input="a"), "NotFoundError"),
    ("a model by a name that is not here", lambda c: c.embeddings.create(model="x", input="a"),
     "NotFoundError"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "ask", "error"), CHANGES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_what_is_refused_comes_as_the_clients_own_error(
    client: Any, what: str, ask: Callable[[Any], Any], error: str
) -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(getattr(openai, error)) as caught:
        ask(client)
    assert caught.value.body["message"]


def test_a_request_may_leave_the_only_model_out(served: Any) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": "a", "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": MESSAGES[0], "max_tokens": 1}),
        ("/v1/embeddings", {"input": "a"}),
    ):
        status, said, _ = served.ask(path, body)
        assert (status, said["model"]) == (200, "tiny")


def test_models_are_listed_and_fetched(client: Any) -> None:
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
