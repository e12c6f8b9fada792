"""What people think of answers, in an SQLite file, and as rows to train on; not for training.

A row of the table is one opinion with the model's hash, the conversation, the seed and the
sampling: what is needed to make the same answer again.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from isoflop.core.artifact import sha256_json
from isoflop.core.errors import ArtifactError, DataError

FeedbackForm = Literal["sft", "preferences", "kto"]
"""Rows `{messages}`, `{prompt, chosen, rejected}`, or `{prompt, completion, label}`."""

_TABLE = """
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY,
    created REAL NOT NULL,
    model_sha256 TEXT NOT NULL,
    messages TEXT NOT NULL,
    answer TEXT NOT NULL,
    rating INTEGER,
    rejected TEXT,
    edited TEXT,
    seed INTEGER,
    sampling TEXT,
    comment TEXT,
    sha256 TEXT
)
"""
_VERSION = 2
_WITHOUT_HASHES = 1
"""Version of stores whose rows have no hash: the column is added, old rows stay without."""


class Opinion(Protocol):
    """What is kept beside the model and the conversation."""

    answer: str
    rating: Literal[-1, 0, 1] | None
    rejected: str | None
    edited: str | None
    seed: int | None
    sampling: dict[str, Any] | None
    comment: str | None


class FeedbackStore:
    """A file of opinions; several processes may write to it at once.

    Raises:
        ArtifactError: The file is something else.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.exists():
            raise ArtifactError(
                "no such feedback store",
                where=str(path),
                fix="`isoflop serve MODEL --feedback FILE` makes one",
            )
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=10, check_same_thread=False)
            # Readers and one writer at a time, each write on the disk before it is answered.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _WITHOUT_HASHES, _VERSION):
                raise self._wrong(f"a feedback store of version {version}, not {_VERSION}")
            with self._connection:
                if version == _WITHOUT_HASHES:
                    self._connection.execute("ALTER TABLE feedback ADD COLUMN sha256 TEXT")
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError as error:
            raise self._wrong(f"not a feedback store ({error})") from None

    def add(
        self, model_sha256: str, messages: Sequence[Mapping[str, Any]], opinion: Opinion
    ) -> int:
        """Keep an opinion; returns its number."""
        row = (
            time.time(), model_sha256, _json(messages), opinion.answer, opinion.rating,
            opinion.rejected, opinion.edited, opinion.seed,
            None if opinion.sampling is None else _json(opinion.sampling), opinion.comment,
        )  # fmt: skip
        with self._lock, self._connection:
            cursor = self._connection.execute(
                "INSERT INTO feedback (created, model_sha256, messages, answer, rating, rejected,"
                " edited, seed, sampling, comment, sha256)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, sha256_json(row)),
            )
        return int(cursor.lastrowid or 0)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Opinions in the order they came.

        Raises:
            ArtifactError: The file is damaged, or an opinion differs from its hash.
        """
        try:
            cursor = self._connection.execute("SELECT * FROM feedback ORDER BY id")
            names = [column[0] for column in cursor.description]
            for number, *values, told in cursor:
                if told is not None and told != sha256_json(values):
                    raise self._wrong(f"opinion {number} differs from its hash: it was damaged")
                row = dict(zip(names, (number, *values, told), strict=True))
                row["messages"] = json.loads(row["messages"])
                yield row
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise self._wrong(f"the feedback store is damaged ({error})") from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _wrong(self, what: str) -> ArtifactError:
        return ArtifactError(what, where=str(self.path), fix="Give another --feedback file")


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    rows: int
    unused: int
    """Opinions that say nothing of the kind asked for."""


def rows_of(opinions: Iterator[Mapping[str, Any]], form: FeedbackForm) -> Iterator[dict[str, Any]]:
    """Opinions as rows to train on; one may give several, one or none.

    `sft`: what was edited, as edited, and what got a thumb up. `preferences`: an edit over the
    answer, a chosen answer over the rejected one. `kto`: each thumb, and edits as desirable.
    """
    for row in opinions:
        messages, answer = row["messages"], row["answer"]
        meta = {
            "feedback_id": row["id"], "model_sha256": row["model_sha256"], "seed": row["seed"],
        }  # fmt: skip
        edited = row["edited"] if row["edited"] not in (None, answer) else None
        if form == "sft":
            best = edited if edited is not None else answer if row["rating"] == 1 else None
            if best is not None:
                yield {"messages": [*messages, *_said(best)], **meta}
        elif form == "preferences":
            pairs = [(edited, answer), (answer, row["rejected"])]
            for chosen, rejected in pairs:
                if None not in (chosen, rejected) and chosen != rejected:
                    yield {"prompt": messages, "chosen": _said(chosen),
                           "rejected": _said(rejected), **meta}  # fmt: skip
        else:
            if row["rating"] in (-1, 1):
                yield {"prompt": messages, "completion": _said(answer),
                       "label": row["rating"] == 1, **meta}  # fmt: skip
            if edited is not None:
                yield {"prompt": messages, "completion": _said(edited), "label": True, **meta}


def export(store: Path, form: FeedbackForm, out: Path) -> Exported:
    """Write a store's opinions as JSON lines to train on, whole or not at all.

    Raises:
        ArtifactError: The store is missing or something else.
        DataError: No opinion gives a row of that form.
    """
    from isoflop.core.artifact import write_atomic

    opinions = FeedbackStore(store, create=False)
    try:
        everything = list(opinions)
    finally:
        opinions.close()
    rows = list(rows_of(iter(everything), form))
    if not rows:
        raise DataError(
            f"none of its {len(everything)} opinions gives a row of the form {form}",
            where=str(store),
            fix="Thumbs give sft and kto rows, choices preferences, edits all three",
        )
    lines = "".join(_json(row) + "\n" for row in rows)
    write_atomic(out, lines.encode())
    used = {row["feedback_id"] for row in rows}
    return Exported(len(rows), len(everything) - len(used))


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
