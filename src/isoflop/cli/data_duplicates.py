"""`isoflop data duplicates`; not for the work itself (`isoflop.data.corpus_duplicates`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.artifact import write_json
from isoflop.core.console import make_progress, print_result
from isoflop.data.duplicates_recipe import DuplicatesConfig

_IDS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class DuplicatesArguments(Arguments):
    """Report the duplicates in a finished corpus; nothing is removed from it."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None
    """Write the report here too, as JSON (`duplicates.json`)."""
    remember: Annotated[Path | None, arg(metavar="DIR")] = None
    """Write an index of what would be kept, against which later data can be matched (`index`); an
    index that stands there grows."""
    kinds: Annotated[DuplicatesConfig, arg(name="")] = field(
        default_factory=lambda: DuplicatesConfig(near=True)
    )


def run_duplicates(args: list[str]) -> int:
    """Run the command; 0 unless the input is bad."""
    arguments = parse_arguments(DuplicatesArguments, args, "data duplicates")
    from isoflop.data.corpus import inspect
    from isoflop.data.corpus_duplicates import corpus_duplicates

    corpus = inspect(arguments.corpus)
    progress = make_progress(arguments.json)
    found = corpus_duplicates(corpus, arguments.kinds, progress, arguments.remember)
    if arguments.out is not None:
        write_json(arguments.out, found.report)
    print_result(found.report, "" if arguments.json else report_text(found.report), arguments.json)
    return 0


def report_text(report: dict[str, Any]) -> str:
    """The report as a few lines: how many of each kind, and the largest clusters."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in report["by_kind"].items() if count)
    lines = [
        f"{report['removed']:,} of {report['documents']:,} documents are duplicates"
        + (f": {kinds}" if kinds else "")
    ]
    if cut := report["cut"]["documents"]:
        lines.append(
            f"{cut:,} more hold {report['cut']['characters']:,} characters of repeated passages"
        )
    for cluster in report["largest"]:
        shown = ", ".join(cluster["ids"][:_IDS_SHOWN])
        more = ", …" if cluster["size"] - 1 > _IDS_SHOWN else ""
        lines.append(
            f"  {cluster['size']:,} alike: {cluster['kept']} would stay, not {shown}{more}"
        )
    return "\n".join(lines)
