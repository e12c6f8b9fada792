"""The account of a corpus: what came in, what was dropped for which reason, what was kept.

Not for deciding: whoever drops a document says so here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from isoflop.data.documents import Skipped

_MAX_EXAMPLES = 10


class Funnel:
    """Counts documents and bytes on their way into a corpus."""

    def __init__(self) -> None:
        self.rejects: list[dict[str, Any]] = []
        """Unreadable files and broken rows, in reading order: `{source, file, line, reason}`."""
        self.documents_kept = 0
        self.bytes_kept = 0
        self._dropped: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, dict[str, Counter[str]]] = {}
        self._splits: dict[str, Counter[str]] = {}
        self._languages: dict[str, dict[str, Counter[str]]] = {}
        self._pii: dict[str, Counter[str]] = {}

    def keep(self, source: str, split: str, language: str, raw_bytes: int, text_bytes: int) -> None:
        """Count a document that entered `split`; bytes before and after normalising."""
        self.documents_kept += 1
        self.bytes_kept += text_bytes
        part = self._source(source)
        part["in"].update(documents=1, bytes=raw_bytes)
        part["kept"].update(documents=1, bytes=text_bytes)
        self._splits.setdefault(split, Counter()).update(documents=1, bytes=text_bytes)
        by_language = self._languages.setdefault(split, {})
        by_language.setdefault(language, Counter()).update(documents=1, bytes=text_bytes)

    def drop(self, source: str, skipped: Skipped) -> None:
        """Count a document that did not enter, with an example or, if broken, a reject."""
        self._source(source)["in"].update(documents=1, bytes=skipped.bytes)
        entry = self._dropped.setdefault(
            skipped.reason, {"documents": 0, "bytes": 0, "examples": []}
        )
        entry["documents"] += 1
        entry["bytes"] += skipped.bytes
        place = skipped.where if skipped.line is None else f"{skipped.where}:{skipped.line}"
        if len(entry["examples"]) < _MAX_EXAMPLES:
            entry["examples"].append(place)
        if skipped.broken:
            self.rejects.append(
                {
                    "source": source,
                    "file": skipped.where,
                    "line": skipped.line,
                    "reason": skipped.reason,
                    "detail": skipped.detail,
                }
            )

    def count_pii(self, found: dict[str, int]) -> None:
        """Count the personal data of one document: kind → how many pieces of it."""
        for kind, number in found.items():
            self._pii.setdefault(kind, Counter()).update(documents=1, found=number)

    def as_json(self) -> dict[str, Any]:
        """The account as `funnel.json` holds it."""
        parts = self._sources.values()
        return {
            "in": _total(part["in"] for part in parts),
            "dropped": dict(
                sorted(self._dropped.items(), key=lambda item: (-item[1]["bytes"], item[0]))
            ),
            "rejects": len(self.rejects),
            "pii": {kind: dict(count) for kind, count in sorted(self._pii.items())},
            "kept": _total(part["kept"] for part in parts),
            "sources": {
                name: {side: _total([count]) for side, count in part.items()}
                for name, part in self._sources.items()
            },
            "splits": {
                split: {
                    **_total([count]),
                    "languages": {
                        language: _total([part])
                        for language, part in sorted(self._languages[split].items())
                    },
                }
                for split, count in sorted(self._splits.items())
            },
        }

    def _source(self, name: str) -> dict[str, Counter[str]]:
        return self._sources.setdefault(name, {"in": Counter(), "kept": Counter()})


def _total(counts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {"documents": total["documents"], "bytes": total["bytes"]}
