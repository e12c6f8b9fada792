"""Opinions are kept through concurrent writers, and come out as rows of the three forms."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.core.errors import ArtifactError
from isoflop.serving.feedback import FeedbackStore
from isoflop.serving.protocol import FeedbackBody

ASKED = [{"role": "user", "content": "你好"}]
OPINIONS = [
    {"answer": "good", "rating": 1, "seed": 7},
    {"answer": "bad", "rating": -1},
    {"answer": "chosen", "rejected": "other"},
    {"answer": "draft", "edited": "final"},
    {"answer": "kept", "edited": "kept"},
    {"answer": "same", "rejected": "same"},
]


def body(**values: Any) -> FeedbackBody:
    return FeedbackBody.model_validate({"messages": ASKED, **values})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.sqlite"
    opened = FeedbackStore(path)
    for values in OPINIONS:
        opened.add("model", ASKED, body(**values))
    opened.close()
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("form", "wanted", "unused"),
    [
        ("sft", [{"messages": ASKED + said("good")}, {"messages": ASKED + said("final")}], 4),
        (
            "preferences",
            [
                {"prompt": ASKED, "chosen": said("chosen"), "rejected": said("other")},
                {"prompt": ASKED, "chosen": said("final"), "rejected": said("draft")},
            ],
            4,
        ),
        (
            "kto",
            [
                {"prompt": ASKED, "completion": said("good"), "label": True},
                {"prompt": ASKED, "completion": said("bad"), "label": False},
                {"prompt": ASKED, "completion": said("final"), "label": True},
            ],
            3,
        ),
    ],
)
def test_opinions_become_rows_to_train_on(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, wanted: Any,
    unused: int,
) -> None:  # fmt: skip
    out = tmp_path / "rows.jsonl"
    args = ["feedback", "export", str(store), "--to", form, "-o", str(out), "--json"]
    assert main(args) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"], document["unused"]) == (len(wanted), unused)
    got = rows(out)
    meta = {"feedback_id", "model_sha256", "seed"}
    assert [{key: row[key] for key in row.keys() - meta} for row in got] == wanted
    assert all(row["model_sha256"] == "model" for row in got)


def test_writers_of_several_connections_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    stores = [FeedbackStore(path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(
            pool.map(
                lambda i: stores[i % 4].add("m", ASKED, body(answer=str(i), rating=1)), range(80)
            )
        )
    assert sorted(numbers) == list(range(1, 81))
    assert {row["answer"] for row in stores[0]} == {str(i) for i in range(80)}
    for store in stores:
        store.close()


def test_what_is_no_store_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 100)
    with pytest.raises(ArtifactError, match="not a feedback store"):
        FeedbackStore(text)
    later = tmp_path / "later.sqlite"
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(ArtifactError, match="version 9"):
        FeedbackStore(later)
    missing = ["feedback", "export", str(tmp_path / "no"), "--to", "sft", "-o", str(tmp_path / "o")]
    assert main(missing) == 2
    assert "no such feedback store" in capsys.readouterr().err
    FeedbackStore(tmp_path / "empty.sqlite").close()
    empty = ["feedback", "export", str(tmp_path / "empty.sqlite"), "--to", "kto", "-o", "o"]
    assert main(empty) == 2
    assert "none of its 0 opinions" in capsys.readouterr().err


def test_the_api_keeps_an_opinion_with_the_models_hash(served: Any) -> None:
    status, reply, _ = served.ask(
        "/feedback", {"messages": ASKED, "answer": "a", "rating": -1, "seed": 5,
                      "sampling": {"temperature": 0.5}},
    )  # fmt: skip
    assert status == 200
    (row,) = [row for row in served.service.feedback if row["id"] == reply["id"]]
    assert row["model_sha256"] == served.service.sha256
    assert (row["messages"], row["seed"], row["rating"]) == (ASKED, 5, -1)
