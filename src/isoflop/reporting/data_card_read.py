"""Reads a corpus directory for its data card; not for what the card says of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from isoflop.core.artifact import read_json, read_manifest
from isoflop.core.errors import ArtifactError
from isoflop.data.tokenizer import Tokenizer
from isoflop.reporting.data_card_documents import (
    EXCERPT_CHARACTERS,
    MOST_EXAMPLES,
    Documents,
    lengths,
    rows,
)
from isoflop.reporting.data_card_records import (
    Card,
    Cluster,
    Contamination,
    Duplicates,
    Example,
    Row,
    Source,
    Task,
)

T = TypeVar("T")


def read_card(corpus: Path, tokenizer: Tokenizer | None = None) -> Card:
    """Read a finished corpus directory.

    Args:
        tokenizer: Counts tokens, on about 2 MB of each language.

    Raises:
        ArtifactError: It is missing, unfinished, damaged, or not a corpus; names the file.
    """
    manifest = read_manifest(corpus, "corpus")
    funnel_path = corpus / "funnel.json"
    funnel = _checked(funnel_path, lambda raw: _Funnel(raw))
    recipe = read_json(corpus / "config.json")
    seen = Documents(corpus, tokenizer)
    pii_action = _checked(
        corpus / "config.json",
        lambda raw: str(raw.get("clean", {}).get("pii", {}).get("action", "keep")),
    )
    examples = _read_examples(corpus) or seen.examples
    # Reasons without an example of their own get the places that the funnel names.
    known = {example.reason for example in examples}
    examples += [
        Example(reason, place)
        for reason, places in funnel.places.items()
        if reason not in known
        for place in places[:MOST_EXAMPLES]
    ]
    return Card(
        name=corpus.resolve().name,
        created=manifest.created,
        version=manifest.isoflop_version,
        recipe_sha256=manifest.config_sha256,
        seed=manifest.seed,
        read=funnel.read,
        kept=funnel.kept,
        dropped=funnel.dropped,
        splits=funnel.splits,
        languages=funnel.languages,
        sources=funnel.sources,
        rejects=funnel.rejects,
        lengths=lengths(seen.sizes),
        hosts=rows(seen.hosts),
        with_url=sum(documents for documents, _ in seen.hosts.values()),
        licences=rows(seen.licences),
        pii_action=pii_action,
        pii=funnel.pii,
        examples=tuple(examples),
        duplicates=_optional(corpus / "duplicates.json", _duplicates),
        contamination=_optional(corpus / "contamination.json", _contamination),
        tokens=seen.tokens(funnel.languages),
        recipe=recipe,
    )


# --- the files -----------------------------------------------------------------------------


def _checked(path: Path, read: Callable[[Any], T]) -> T:
    raw = read_json(path)
    try:
        return read(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"not what a data card can be made from: {error!r}",
            where=str(path),
            fix="Build the corpus again with `isoflop data build`",
        ) from None


def _optional(path: Path, read: Callable[[Any], T]) -> T | None:
    return _checked(path, read) if path.exists() else None


def _row(name: str, count: Mapping[str, Any]) -> Row:
    return Row(str(name), int(count["documents"]), int(count["bytes"]))


class _Funnel:
    """`funnel.json`, checked."""

    def __init__(self, raw: Any) -> None:
        self.read, self.kept = _row("read", raw["in"]), _row("kept", raw["kept"])
        self.dropped = tuple(_row(reason, count) for reason, count in raw["dropped"].items())
        self.places = {
            str(reason): [str(place) for place in count.get("examples", ())]
            for reason, count in raw["dropped"].items()
        }
        self.splits = tuple(_row(name, count) for name, count in raw["splits"].items())
        totals: dict[str, Counter[str]] = {}
        for split in raw["splits"].values():
            for language, count in split["languages"].items():
                totals.setdefault(str(language), Counter()).update(
                    documents=int(count["documents"]), bytes=int(count["bytes"])
                )
        languages = [_row(language, count) for language, count in totals.items()]
        self.languages = tuple(sorted(languages, key=lambda row: (-row.bytes, row.name)))
        self.sources = tuple(
            Source(str(name), _row(name, part["in"]), _row(name, part["kept"]))
            for name, part in raw["sources"].items()
        )
        self.rejects = int(raw.get("rejects", 0))
        self.pii = tuple(
            Row(str(kind), int(found["documents"]), int(found["found"]))
            for kind, found in raw.get("pii", {}).items()
        )


def _duplicates(raw: Any) -> Duplicates:
    return Duplicates(
        documents=int(raw["documents"]),
        clusters=int(raw["clusters"]),
        removed=int(raw["removed"]),
        by_kind={str(kind): int(n) for kind, n in raw["by_kind"].items()},
        largest=tuple(
            Cluster(int(c["size"]), str(c["kept"]), tuple(map(str, c["ids"])))
            for c in raw["largest"]
        ),
    )


def _contamination(raw: Any) -> Contamination:
    return Contamination(
        tuple(
            Task(str(name), int(t["items"]), int(t["contaminated"]), int(t["documents"]))
            for name, t in raw["tasks"].items()
        ),
        int(raw["dropped"]),
    )


def _read_examples(corpus: Path) -> list[Example]:
    """Up to ten examples of each reason; none where the corpus holds no such file."""
    path = corpus / "examples.jsonl"
    found: list[Example] = []
    if not path.exists():
        return found
    counts: Counter[str] = Counter()
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                example = _example(json.loads(line))
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise ArtifactError(
                    f"not an example: {error!r}",
                    where=f"{path}:{number}",
                    fix="Build the corpus again with `isoflop data build`",
                ) from None
            counts[example.reason] += 1
            if counts[example.reason] <= MOST_EXAMPLES:
                found.append(example)
    return found


def _example(raw: Mapping[str, Any]) -> Example:
    return Example(
        reason=str(raw["reason"]),
        id=str(raw["id"]),
        source=str(raw.get("source") or ""),
        language=str(raw.get("language") or ""),
        url=str(raw.get("url") or ""),
        bytes=int(raw.get("bytes") or 0),
        excerpt=str(raw.get("excerpt") or "")[:EXCERPT_CHARACTERS],
    )
