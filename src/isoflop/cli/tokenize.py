"""`isoflop tokenize`: a corpus into shards; not for the work itself (`isoflop.data.shards`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, KeepWork, OutPath, PlacementName, parse_arguments
from isoflop.cli.plan_first import PlanFirst, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.foresight import Foresight


@dataclass(frozen=True, kw_only=True)
class TokenizeArguments(Arguments):
    """Encode a corpus into memory-mapped token shards that `isoflop train` reads."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""
    tokenizer: Path
    """A tokenizer directory, as `isoflop tokenizer train` writes it."""
    out: OutPath
    """The directory to write."""
    placement: PlacementName = "auto"
    keep_work: KeepWork = False
    plan: PlanFirst = False


def run(args: list[str]) -> int:
    """Run the command; 0 unless the input is bad."""
    arguments = parse_arguments(TokenizeArguments, args, "tokenize")
    from isoflop.data.corpus import inspect
    from isoflop.data.foresee import foresee_tokenize
    from isoflop.data.shards import shard_summary, tokenize
    from isoflop.data.tokenizer import load

    corpus = inspect(arguments.corpus)

    def foretell() -> Foresight:
        return foresee_tokenize(corpus, load(arguments.tokenizer).vocab_size)

    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    shards = tokenize(
        corpus,
        arguments.tokenizer,
        arguments.out,
        make_progress(arguments.json),
        placement=arguments.placement,
        keep_work=arguments.keep_work,
    )
    summary = shard_summary(shards)
    print_result({"shards": shards.directory, **summary}, _text(summary), arguments.json)
    return 0


def _text(summary: dict[str, Any]) -> str:
    rows = [("", "tokens", "documents", "text", "bytes per token")]
    for name, split in summary["splits"].items():
        rows.append(
            (
                name.replace("_", "-"),
                f"{split['tokens']:,}",
                f"{split['documents']:,}",
                f"{split['bytes'] / 1e6:,.2f} MB",
                f"{split['bytes'] / split['tokens']:.2f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )
