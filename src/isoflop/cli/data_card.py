"""`isoflop data card`: a corpus as one HTML page; not for what the page says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments
from isoflop.core.console import print_result


@dataclass(frozen=True, kw_only=True)
class CardArguments(Arguments):
    """Write what a corpus holds, and what was dropped and why, as one offline HTML page."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """The page to write; `card.html` in the corpus when omitted."""
    tokenizer: Path | None = None
    """A tokenizer directory, to count tokens on a sample of each language."""


def card(asked: CardArguments) -> int:
    """Run `isoflop data card`."""
    from isoflop.reporting.data_card import data_card  # pyarrow: not for --help

    written = data_card(asked.corpus, asked.out, asked.tokenizer)
    found = written.card
    document = {
        "card": written.path,
        "bytes": written.bytes,
        "documents": {"read": found.read.documents, "kept": found.kept.documents},
        "text_bytes": {"read": found.read.bytes, "kept": found.kept.bytes},
        "tokens": None if found.tokens is None else round(found.tokens.total),
        "with_url": found.with_url,
        "hosts": len(found.hosts),
        "duplicates": None if found.duplicates is None else found.duplicates.removed,
        "contaminated": None
        if found.contamination is None
        else sum(task.contaminated for task in found.contamination.tasks),
    }
    print_result(document, f"{written.path} ({written.bytes / 1000:.0f} kB)", asked.json)
    return 0
