"""Whatever a client sends, the server answers with a reason and goes on."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

MESSAGES = [{"role": "user", "content": "a"}]
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", 1]}, "b": {"type": "array"}}}
VALID: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {
        "model": "tiny", "prompt": ["a", "b"], "max_tokens": 2, "logprobs": 1, "echo": True,
        "temperature": 1.0, "top_p": 0.9, "n": 2, "stop": ["x"], "logit_bias": {"5": 1.0},
        "seed": 3, "top_k": 4, "stream": False, "user": "u"}),
    ("/v1/chat/completions", {
        "model": "tiny", "messages": MESSAGES, "max_tokens": 2, "logprobs": True,
        "top_logprobs": 2, "response_format": {
            "type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "tools": [], "presence_penalty": 0.5, "stream": True}),
    ("/v1/embeddings", {"model": "tiny", "input": [[1, 2], [3]], "encoding_format": "base64"}),
    ("/v1/moderations", {"input": ["a"]}),
    ("/tokenize", {"messages": MESSAGES, "return_token_strs": True}),
    ("/detokenize", {"tokens": [1, 2, 3]}),
    ("/feedback", {"messages": MESSAGES, "answer": "a", "rating": 1, "sampling": {"a": 1}}),
]  # fmt: skip
ODD: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**70, 1e308, float("nan"), float("inf"), "", "\ud800",
    "\x00", "<|im_end|>", "中" * 300, [], {}, [[]], [None], {"a": {}}, [1.5], [-1], ["\udfff"],
    {"\ud800": 1}, {"type": "text"}, {"$ref": "#/$defs/a"},
]  # fmt: skip


def mutated(value: Any, draw: random.Random) -> Any:
    """The value with something of it replaced, removed or added."""
    if draw.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return draw.choice(ODD)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        return [*value[:place], mutated(value[place], draw), *value[place + 1 :]]
    key = draw.choice(list(value))
    rest = {name: item for name, item in value.items() if name != key}
    act = draw.random()
    if act < 0.1:
        return rest
    if act < 0.2:
        return {**value, draw.choice(["x", "\ud800", "suffix", ""]): draw.choice(ODD)}
    return {**rest, key: mutated(value[key], draw)}


def fuzz(served: Any, seed: int, count: int) -> None:
    draw = random.Random(seed)
    met: set[int] = set()
    for _ in range(count):
        path, body = draw.choice(VALID)
        for _ in range(draw.choice([1, 1, 2])):
            changed = mutated(body, draw)
            body = changed if isinstance(changed, dict) else body
        status, said, _ = served.ask(path, raw=json.dumps(body).encode())
        met.add(status)
        assert status in (200, 400, 404), (path, body, said)
        if status != 200:
            assert said["error"]["message"]
    assert {200, 400} <= met
    assert served.idle()


def test_mangled_bodies_are_refused_with_a_reason(served: Any) -> None:
    fuzz(served, 0, 120)


@pytest.mark.slow
def test_two_thousand_mangled_bodies_are_refused_with_a_reason(served: Any) -> None:
    fuzz(served, 1, 2000)


@pytest.mark.parametrize(
    "deep", [b"[" * 5000, b'{"a":' * 5000, b'{"model": "tiny", "prompt": ' + b"[" * 99]
)
def test_a_body_nested_too_deep_is_refused(served: Any, deep: bytes) -> None:
    status, said, _ = served.ask("/v1/completions", raw=deep)
    assert status == 400
    assert "64 deep" in said["error"]["message"]
    brackets = {"model": "tiny", "prompt": "[" * 100, "max_tokens": 1}
    assert served.ask("/v1/completions", brackets)[0] == 200


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (r"\ud83d\ude42", 200), (r"\\ud800", 200), (r"a\n\u4e2d", 200), (r"\ud83d", 400),
        (r"\ude42", 400), (r"\ud83d\n", 400), (r"\ud83dx\ude42", 400), (r"\ud83d\ud83d\ude42", 400),
    ],
)  # fmt: skip
def test_halves_of_surrogate_pairs_are_no_text(served: Any, text: str, status: int) -> None:
    raw = b'{"model": "tiny", "prompt": "' + text.encode() + b'"}'
    got, said, _ = served.ask("/tokenize", raw=raw)
    assert got == status
    if got == 200:
        assert said["prompt"] == json.loads(f'"{text}"')


@pytest.mark.slow
def test_sixty_four_clients_that_come_and_go_leak_nothing_and_get_their_own_answers(
    served: Any,
) -> None:
    def ask(number: int) -> str:
        said = served.client().completions.create(
            model="tiny", prompt=f"loss {number}", max_tokens=20, seed=number
        )
        return str(said.choices[0].text)

    def visit(number: int) -> str | None:
        draw = random.Random(number)
        client = served.client()
        stream = client.completions.create(
            model="tiny", prompt=f"loss {number % 16}", max_tokens=20, seed=number % 16, stream=True
        )
        text, leaves = "", draw.random() < 0.4
        for chunk in stream:
            text += chunk.choices[0].text
            if leaves and draw.random() < 0.3:
                stream.close()
                return None
            time.sleep(draw.choice([0, 0, 0.02]))
        return text

    alone = [ask(number) for number in range(16)]
    with ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(visit, range(256)))
    whole = [(number, text) for number, text in enumerate(texts) if text is not None]
    assert len(whole) > 100
    assert all(text == alone[number % 16] for number, text in whole)
    assert served.idle()
    assert threading.active_count() < 200


@pytest.mark.slow
def test_schemathesis_finds_no_server_error(served: Any, tmp_path: Path) -> None:
    """Two thousand cases and more from the OpenAPI document itself."""
    pytest.importorskip("schemathesis")
    report = tmp_path / "cases.ndjson"
    ran = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{served.address}/openapi.json",
            "--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--seed", "1",
            "--max-examples", "200", "--continue-on-failure", "--suppress-health-check", "all",
            "--request-timeout", "120", "--no-color", "--report", "ndjson",
            "--report-ndjson-path", str(report),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-4000:]
    found = re.search(r"([\d,]+) generated", ran.stdout)
    assert found is not None, ran.stdout[-2000:]
    assert int(found[1].replace(",", "")) >= 2000
    assert served.idle()
