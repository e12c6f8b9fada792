"""Whatever a model would say, the grammar lets out JSON of the schema, and all such JSON."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from isoflop.core.errors import RecipeError
from isoflop.data.tokenizer import Tokenizer
from isoflop.serving.json_grammar import JsonGrammar, TokenTrie
from isoflop.serving.json_schema import compile_schema
from isoflop.serving.vocabulary import Vocabulary

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer"},
        "kind": {"enum": ["甲", "b", 3, None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        "friend": {"anyOf": [{"$ref": "#/$defs/friend"}, {"type": "null"}]},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
    "$defs": {"friend": {"type": "object", "properties": {"friend": {"$ref": "#/$defs/friend"}}}},
}


@pytest.fixture(scope="module")
def trie(tokenizer: Tokenizer) -> TokenTrie:
    return TokenTrie(Vocabulary(tokenizer, tokenizer.vocab_size).bytes_of)


def babble(trie: TokenTrie, schema: dict[str, Any] | None, end: int, seed: int) -> str:
    """A text of random allowed tokens; those that close something are liked more and more."""
    grammar = JsonGrammar(trie, compile_schema(schema), frozenset({end}))
    draw, said = random.Random(seed), b""
    closing = {i for i, b in enumerate(trie.token_bytes) if b in (b'"', b"}", b"]", b"0", b"e")}
    for count in range(4000):
        allowed = np.flatnonzero(grammar.allowed()).tolist()
        assert allowed, said
        liked = [index for index in allowed if index in closing or index == end]
        token = draw.choice(liked if liked and draw.random() < count / 60 else allowed)
        grammar.accept(token)
        if token == end:
            assert not grammar.allowed().any()
            return said.decode()
        said += trie.token_bytes[token]
    raise AssertionError("it never ended")


def test_random_tokens_make_json_of_the_schema(trie: TokenTrie, tokenizer: Tokenizer) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for seed in range(25):
        text = babble(trie, PERSON, tokenizer.eos_id, seed)
        jsonschema.validate(json.loads(text), PERSON)


def test_random_tokens_make_a_json_object(trie: TokenTrie, tokenizer: Tokenizer) -> None:
    for seed in range(25):
        assert isinstance(json.loads(babble(trie, None, tokenizer.eos_id, seed)), dict)


@pytest.mark.parametrize(
    "value",
    [
        {"name": 'a"é', "tags": [True]},
        {"name": "", "age": -120, "kind": "甲", "tags": [False, True], "friend": {"friend": {}}},
        {"name": "🙂中", "kind": None, "tags": [True, True, False], "friend": None},
    ],
)
def test_every_value_of_the_schema_can_be_said(
    trie: TokenTrie, tokenizer: Tokenizer, value: Any
) -> None:
    for separators in ((",", ":"), (", ", ": ")):
        text = json.dumps(value, ensure_ascii=False, separators=separators)
        grammar = JsonGrammar(trie, compile_schema(PERSON), frozenset({tokenizer.eos_id}))
        for token in [*tokenizer.encode(text), tokenizer.eos_id]:
            assert grammar.allowed()[token], (text, token)
            grammar.accept(token)


@pytest.mark.parametrize(
    "text",
    ['{"name": 1', '{"tags"', '{"name":"abcde', '{"name":"a","tags":[]', '{"x"', "[", "\ufeff{"],
)
def test_nothing_else_can_be_said(trie: TokenTrie, tokenizer: Tokenizer, text: str) -> None:
    grammar = JsonGrammar(trie, compile_schema(PERSON), frozenset({tokenizer.eos_id}))
    for byte in text.encode():
        token = trie.token_bytes.index(bytes([byte]))
        if not grammar.allowed()[token]:
            return
        grammar.accept(token)
    raise AssertionError("it was let through")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "a+"}, "'pattern', which is not supported"),
        ({"type": "object", "properties": {"a": {"minimum": 1}}}, r"properties.a has .*'minimum'"),
        ({"type": "text"}, "'text', which JSON has not"),
        ({"$ref": "#/$defs/none"}, "which is not there"),
        ({"$ref": "http://x"}, "only #/"),
        ({"enum": []}, "lists nothing"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "maxItems = 2 below"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "additionalProperties"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        compile_schema(schema)
