"""Against a real HTTP server in a thread, since what is to be shown is what goes over the wire."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import DataError, RecipeError
from isoflop.data.endpoint import BudgetSpent, Endpoint, EndpointConfig
from isoflop.data.instruct import BAD_ROWS, REPLIES, InstructSet, instruct
from isoflop.data.instruct_asked import rouge_l, words_of
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource

Answer = Callable[[dict[str, Any], int], tuple[int, dict[str, str], bytes]]
"""(request, its number) → (HTTP state, headers, body)."""


def said(text: str, tokens: int = 10) -> tuple[int, dict[str, str], bytes]:
    choice = {"message": {"role": "assistant", "content": text}}
    reply = {"choices": [choice], "usage": {"total_tokens": tokens}}
    return 200, {}, json.dumps(reply).encode()


class Server(ThreadingHTTPServer):
    """Answers by a function and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.requests, self.lock = answer, [], threading.Lock()
        self.headers: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, body))
            self.server.headers.append(dict(self.headers))
        state, headers, content = self.server.answer(body, number)
        self.send_response(state)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Keeps quiet."""


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def config(server: Server, **changes: Any) -> EndpointConfig:
    return EndpointConfig(server.url, "teacher", **{"parallel": 2, **changes})


HELLO = [{"role": "user", "content": "hello"}]


def test_what_is_sent_is_a_chat_completion_with_the_key_of_the_environment(
    serve: Callable[[Answer], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda body, number: said("hi"))
    monkeypatch.setenv("TEACHER_KEY", "secret")
    endpoint = Endpoint(config(server, key_variable="TEACHER_KEY"), tmp_path / "replies")
    assert endpoint.ask(HELLO, 7) == "hi"
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "teacher", "messages": HELLO, "temperature": 0.7, "max_tokens": 512, "seed": 7,
    }  # fmt: skip
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in (tmp_path / "replies").read_text()
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(RecipeError, match="TEACHER_KEY is not set"):
        Endpoint(config(server, key_variable="TEACHER_KEY"), tmp_path / "replies")


def test_a_passing_failure_is_tried_again_after_longer_and_longer(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    states = [(503, {}), (429, {"Retry-After": "9"}), (500, {})]

    def answer(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return (*states[number], b"busy") if number < 3 else said("at last")

    waits: list[float] = []
    endpoint = Endpoint(config(serve(answer)), tmp_path / "replies", waits.append)
    assert endpoint.ask(HELLO, 0) == "at last"
    assert waits == [1.0, 9.0, 4.0]


def test_what_will_not_pass_is_told_at_once_and_silence_after_all_tries(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, number: (401, {}, b"no such key"))
    with pytest.raises(DataError, match="refuses: HTTP 401 no such key"):
        Endpoint(config(server), tmp_path / "a").ask(HELLO, 0)
    assert len(server.requests) == 1
    waits: list[float] = []
    nobody = EndpointConfig("http://127.0.0.1:9/v1", "teacher", retries=2)
    with pytest.raises(DataError, match="did not answer in 3 tries"):
        Endpoint(nobody, tmp_path / "b", waits.append).ask(HELLO, 0)
    assert waits == [1.0, 2.0]
    odd = serve(lambda body, number: (200, {}, b"<html>"))
    with pytest.raises(DataError, match="no chat completion: b'<html>'"):
        Endpoint(config(odd), tmp_path / "c").ask(HELLO, 0)


def test_the_budget_ends_the_asking_and_known_replies_are_never_asked_again(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, number: said("hi", tokens=60))
    endpoint = Endpoint(config(server, budget_tokens=100), tmp_path / "replies")
    endpoint.ask(HELLO, 0)
    endpoint.ask(HELLO, 1)
    with pytest.raises(BudgetSpent):
        endpoint.ask(HELLO, 2)
    with open(tmp_path / "replies", "a") as file:
        file.write('{"key": "torn')  # as a kill leaves it
    again = Endpoint(config(server), tmp_path / "replies")
    assert [again.ask(HELLO, seed) for seed in (0, 1)] == ["hi", "hi"]
    assert len(server.requests) == 2


# --- self-instruct -------------------------------------------------------------------------

SUBJECTS = ("rivers", "clocks", "bread", "maps", "bridges", "violins", "snow", "glass", "tea")


def teacher(body: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    """Invents a task by the request's seed; some replies are bad, some tasks alike."""
    asked = body["messages"][0]["content"]
    if asked.startswith("Rate"):
        return said(f'{{"rating": {2 if "Tea" in asked else 5}}}')
    if asked.startswith("Which instruction"):
        return said(json.dumps({"instruction": f"Tell me of {asked.split()[10]}."}))
    place = body["seed"] % len(SUBJECTS)
    if place == 3:
        return said("I would rather not.")
    task = {"instruction": f"{SUBJECTS[place].title()}: name {place + 3} facts", "answer": "Well."}
    if place == 4:
        task = {"instruction": "Name a fruit that is red please.", "answer": "Cherry."}
    return said(f"```json\n{json.dumps(task)}\n```")


def asked_set(server: Server, tmp_path: Path, **changes: Any) -> InstructSet:
    seeds = tmp_path / "seeds.jsonl"
    rows = [{"prompt": "Name a fruit that is red.", "completion": "Apple."}, {"prompt": "?"}]
    seeds.write_text("\n".join(map(json.dumps, rows)))
    source = InstructSource("self-instruct", path=seeds, endpoint=config(server), **changes)
    return instruct(InstructRecipe((source,), held_out_fraction=0.0), tmp_path / "set")


def reasons(tmp_path: Path) -> list[str]:
    bad = (tmp_path / "set" / BAD_ROWS).read_text()
    return [json.loads(line)["reason"] for line in bad.splitlines()]


def test_self_instruct_keeps_what_is_new_and_lists_the_rest(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(teacher)
    made = asked_set(server, tmp_path, count=6)
    assert len(made.rows("supervised", "train")) == 6
    assert reasons(tmp_path) == [
        "the reply is not the JSON asked for", "too like another instruction",
    ]  # fmt: skip
    assert "Name a fruit that is red." in server.requests[0][1]["messages"][0]["content"]
    # Made again, with every reply known: the same rows and no request.
    before = len(server.requests)
    again = asked_set(server, tmp_path, count=6)
    assert again.rows("supervised", "train") == made.rows("supervised", "train")
    assert len(server.requests) == before
    assert (tmp_path / "set" / REPLIES).exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_ratings_drop_what_the_endpoint_finds_poor(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    made = asked_set(serve(teacher), tmp_path, count=7, least_rating=3)
    rows = made.rows("supervised", "train")
    assert {row["rating"] for row in rows} == {5}
    assert not any("Tea" in row["messages"][0]["content"] for row in rows)
    assert "rated below 3" in reasons(tmp_path)


def test_back_translation_asks_for_the_instruction_that_a_text_answers(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    rows = [{"text": "Whales sing."}, {"text": " "}, {"text": "Owls hunt by ear."}]
    texts.write_text("\n".join(map(json.dumps, rows)))
    source = InstructSource("back-translation", path=texts, endpoint=config(serve(teacher)))
    recipe = InstructRecipe((source,), held_out_fraction=0.0)
    made = instruct(recipe, tmp_path / "set")
    assert [row["messages"][1]["content"] for row in made.rows("supervised", "train")] == [
        "Whales sing.", "Owls hunt by ear.",
    ]  # fmt: skip
    bad = json.loads((tmp_path / "set" / BAD_ROWS).read_text())
    assert (bad["file"], bad["line"], bad["reason"]) == (str(texts), 2, "missing text")


def test_the_end_of_the_budget_leaves_the_rows_made_so_far(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"Text number {n}."}) for n in range(20)))
    small = config(serve(teacher), budget_tokens=40, parallel=1)
    source = InstructSource("back-translation", path=texts, endpoint=small)
    made = instruct(InstructRecipe((source,), held_out_fraction=0.0), tmp_path / "set")
    assert len(made.rows("supervised", "train")) == 4


def test_likeness_is_that_of_the_longest_common_subsequence() -> None:
    one, other = words_of("Name three red fruits, please!"), words_of("name two red fruits 水果")
    assert other == ["name", "two", "red", "fruits", "水", "果"]
    assert rouge_l(one, other) == pytest.approx(2 * 3 / (5 + 6))
    for a, b in ((one, other), (other, one), (one, one), (one, [])):
        # difflib finds a common subsequence, so never a longer one.
        found = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
        least = 2 * sum(block.size for block in found) / max(1, len(a) + len(b))
        assert rouge_l(a, b) >= least
    assert rouge_l(one, one) == 1


def test_an_endpoint_belongs_to_sources_that_ask_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"self-instruct needs an endpoint\.url"):
        InstructRecipe((InstructSource("self-instruct", path=tmp_path),))
    broken = EndpointConfig("localhost", "m")
    with pytest.raises(RecipeError, match="must begin with http"):
        InstructRecipe((InstructSource("self-instruct", path=tmp_path, endpoint=broken),))
