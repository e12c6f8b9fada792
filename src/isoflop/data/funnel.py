"""The account of a corpus: what came in, what was dropped for which reason, what was kept.

Not for deciding: this counts what the choices say.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.data.annotated import read_skipped, read_tables
from isoflop.data.choose import SPLITS, choices_of, reasons_of
from isoflop.data.documents import Skipped
from isoflop.data.examples import Examples, hidden_kinds
from isoflop.data.judge import Shard, read_judged
from isoflop.data.language import UNKNOWN
from isoflop.data.recipe import DataRecipe

_MAX_EXAMPLES = 10
_REJECTS, _EXAMPLES = "rejects.jsonl", "examples.jsonl"


class Funnel:
    """Counts documents and bytes on their way into a corpus; accounts add up in any grouping."""

    def __init__(self) -> None:
        self.rejects = 0
        self._dropped: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, dict[str, Counter[str]]] = {}
        self._splits: dict[str, Counter[str]] = {}
        self._languages: dict[str, dict[str, Counter[str]]] = {}
        self._pii: dict[str, Counter[str]] = {}

    def keep(self, source: str, split: str, language: str, raw_bytes: int, text_bytes: int) -> None:
        """Count a document that entered `split`; bytes before and after normalising."""
        part = self._source(source)
        part["in"].update(documents=1, bytes=raw_bytes)
        part["kept"].update(documents=1, bytes=text_bytes)
        self._splits.setdefault(split, Counter()).update(documents=1, bytes=text_bytes)
        by_language = self._languages.setdefault(split, {})
        by_language.setdefault(language, Counter()).update(documents=1, bytes=text_bytes)

    def drop(self, source: str, reason: str, place: str, raw_bytes: int) -> None:
        """Count a document that did not enter, and where it is, as an example."""
        self._source(source)["in"].update(documents=1, bytes=raw_bytes)
        self._add_dropped(reason, {"documents": 1, "bytes": raw_bytes, "examples": [place]})

    def count_pii(self, found: Mapping[str, int]) -> None:
        """Count the personal data of one document: kind → how many pieces of it."""
        for kind, number in found.items():
            self._pii.setdefault(kind, Counter()).update(documents=1, found=number)

    def state(self) -> dict[str, Any]:
        """All counts as plain JSON values, for `merge`."""
        return {
            "rejects": self.rejects,
            "dropped": self._dropped,
            "sources": self._sources,
            "splits": self._splits,
            "languages": self._languages,
            "pii": self._pii,
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the counts of another account; those of earlier documents must come first."""
        self.rejects += state["rejects"]
        for reason, entry in state["dropped"].items():
            self._add_dropped(reason, entry)
        for name, part in state["sources"].items():
            for side, count in part.items():
                self._source(name)[side].update(count)
        for counters, counts in ((self._splits, state["splits"]), (self._pii, state["pii"])):
            for name, count in counts.items():
                counters.setdefault(name, Counter()).update(count)
        for split, languages in state["languages"].items():
            mine = self._languages.setdefault(split, {})
            for language, count in languages.items():
                mine.setdefault(language, Counter()).update(count)

    def as_json(self) -> dict[str, Any]:
        """The account as `funnel.json` holds it."""
        parts = self._sources.values()
        return {
            "in": _total(part["in"] for part in parts),
            "dropped": dict(
                sorted(self._dropped.items(), key=lambda item: (-item[1]["bytes"], item[0]))
            ),
            "rejects": self.rejects,
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

    def _add_dropped(self, reason: str, added: Mapping[str, Any]) -> None:
        entry = self._dropped.setdefault(reason, {"documents": 0, "bytes": 0, "examples": []})
        entry["documents"] += added["documents"]
        entry["bytes"] += added["bytes"]
        entry["examples"] += added["examples"][: _MAX_EXAMPLES - len(entry["examples"])]

    def _source(self, name: str) -> dict[str, Counter[str]]:
        return self._sources.setdefault(name, {"in": Counter(), "kept": Counter()})


def _total(counts: Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {"documents": total["documents"], "bytes": total["bytes"]}


# --- the stage -----------------------------------------------------------------------------


def account(
    engine: Engine, recipe: DataRecipe, shards: Sequence[Shard], choices: Output, aside: Path
) -> dict[str, Any]:
    """Count what became of every document; writes `rejects.jsonl` and `examples.jsonl`.

    Returns:
        The funnel, as `funnel.json` holds it.
    """
    starts = np.cumsum([0, *(shard.documents for shard in shards)]).tolist()
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            {"source": recipe.sources[shard.source].label, "begin": begin, "end": end},
            (choices, shard.annotated, shard.judged),
            bytes=int(shard.annotated.statistics["bytes"]),
        )
        for shard, begin, end in zip(shards, starts, starts[1:], strict=False)
    ]
    parameters = {"seed": recipe.seed, "hidden": hidden_kinds(recipe.clean)}
    accounts = engine.map("account", account_piece, pieces, parameters)
    funnel, examples = Funnel(), Examples(recipe.seed)
    with open(aside / _REJECTS, "wb") as rejects:
        for output in accounts:
            funnel.merge(output.statistics)
            rejects.write((output.directory / _REJECTS).read_bytes())
            examples.merge(output.directory / _EXAMPLES)
    examples.write(aside / _EXAMPLES, with_keys=False)
    return funnel.as_json()


def account_piece(work: Work) -> dict[str, Any]:
    """The task: the account of one shard, its rejects, and examples of what became of it."""
    source = work.value["source"]
    funnel, examples = Funnel(), Examples(work.parameters["seed"], work.parameters["hidden"])
    choices, annotated, judged = work.inputs
    with open(work.out / _REJECTS, "w", encoding="utf-8") as rejects:
        for skipped in read_skipped(annotated):
            funnel.drop(source, skipped.reason, skipped.place, skipped.bytes)
            examples.add_skipped(source, skipped)
            if skipped.broken:
                funnel.rejects += 1
                rejects.write(json.dumps(_reject(source, skipped), ensure_ascii=False) + "\n")
    for choice, row in _rows(choices, annotated, judged, work.value["begin"], work.value["end"]):
        if row["pii"]:
            funnel.count_pii(json.loads(row["pii"]))
        examples.add(row)
        if row["reason"]:
            funnel.drop(source, row["reason"], row["id"], row["raw_bytes"])
        else:
            funnel.keep(source, SPLITS[choice], row["language"], row["raw_bytes"], row["bytes"])
    examples.write(work.out / _EXAMPLES, with_keys=True)
    return funnel.state()


def _rows(
    choices: Path, annotated: Path, judged: Path, begin: int, end: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(choice, row) of every document of a shard, with its text, its language and its reason."""
    chosen = choices_of(choices, begin, end)
    decided = read_judged(judged, ["reason", "text", "bytes", "pii"])
    reasons = reasons_of(chosen, decided["reason"].to_pylist())
    columns = ["id", "text", "source", "url", "language", "identified", "raw_bytes"]
    row = 0
    for table in read_tables(annotated, columns):
        final = decided.slice(row, len(table)).to_pylist()
        for found, decision in zip(table.to_pylist(), final, strict=True):
            if found["language"] == UNKNOWN:
                found["language"] = found["identified"]
            if decision["text"] is not None:
                found["text"] = decision["text"]
            found |= {key: decision[key] for key in ("bytes", "pii")}
            yield int(chosen[row]), found | {"reason": reasons[row]}
            row += 1


def _reject(source: str, skipped: Skipped) -> dict[str, Any]:
    return {
        "source": source,
        "file": skipped.where,
        "line": skipped.line,
        "offset": skipped.offset,
        "reason": skipped.reason,
        "detail": skipped.detail,
    }
