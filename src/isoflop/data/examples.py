"""A few documents for each reason, chosen by hash, for people to look at; not for statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isoflop.data import pii
from isoflop.data.clean_recipe import CleanConfig, PIIName
from isoflop.data.documents import Skipped, order_key

MAX_EXAMPLES = 10
_EXCERPT_CHARACTERS = 500


def hidden_kinds(clean: CleanConfig) -> list[PIIName]:
    """The kinds of personal data that nothing in a corpus may show."""
    return list(clean.pii.kinds) if clean.pii.action in ("redact", "drop") else []


class Examples:
    """Keeps the documents of smallest hash for each reason, so that any grouping gives the same.

    Args:
        hidden: Kinds of personal data that no excerpt may show.
    """

    def __init__(self, seed: int, hidden: Sequence[PIIName] = ()) -> None:
        self._seed, self._hidden = seed, tuple(hidden)
        self._rows: dict[str, dict[tuple[str, str, str], dict[str, Any]]] = {}
        self._last: dict[str, tuple[str, str, str]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Consider a document: its `reason` ("" if kept), id, source, language, url, text."""
        key = (order_key(self._seed, row["id"]).hex(), row["source"], row["id"])
        if not self._wanted(row["reason"], key):
            return
        text = row["text"]
        if self._hidden:
            text = pii.redact(text, pii.find(text, self._hidden))
        self._put(
            key,
            {
                **{name: row[name] for name in ("reason", "id", "source", "language", "url")},
                "bytes": row["raw_bytes"],
                "excerpt": text[:_EXCERPT_CHARACTERS],
            },
        )

    def add_skipped(self, source: str, skipped: Skipped) -> None:
        """Consider something that could not be read; what the reader said is its excerpt."""
        place = skipped.place
        key = (order_key(self._seed, place).hex(), source, place)
        if self._wanted(skipped.reason, key):
            row: dict[str, Any] = {
                "reason": skipped.reason,
                "id": place,
                "source": source,
                "language": "",
            }
            row |= {"url": "", "bytes": skipped.bytes, "excerpt": skipped.detail}
            self._put(key, row)

    def merge(self, path: Path) -> None:
        """Consider what `write` wrote with its keys."""
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                key = (row.pop("key"), row["source"], row["id"])
                if self._wanted(row["reason"], key):
                    self._put(key, row)

    def write(self, path: Path, *, with_keys: bool) -> None:
        """Write the examples, reason by reason; `with_keys` to merge them later."""
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            for _, rows in sorted(self._rows.items()):
                for key, row in sorted(rows.items()):
                    shown = row | {"key": key[0]} if with_keys else row
                    file.write(json.dumps(shown, ensure_ascii=False) + "\n")

    def _wanted(self, reason: str, key: tuple[str, str, str]) -> bool:
        return reason not in self._last or key < self._last[reason]

    def _put(self, key: tuple[str, str, str], row: dict[str, Any]) -> None:
        rows = self._rows.setdefault(row["reason"], {})
        rows[key] = row
        if len(rows) > MAX_EXAMPLES:
            del rows[max(rows)]
        if len(rows) == MAX_EXAMPLES:
            self._last[row["reason"]] = max(rows)
