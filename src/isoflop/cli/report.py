"""`isoflop report`: runs, laws and promises as one HTML page; not for what the page says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import print_result
from isoflop.core.errors import RecipeError


@dataclass(frozen=True)
class ReportArguments(Arguments):
    """Write one HTML page that opens without a network and reads without scripts."""

    paths: Positional[tuple[Path, ...]]
    """Demo, ladder or run directories, `law.json`, `ledger.jsonl` or `runs.csv` files."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")] = Path("report.html")
    """The page to write."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless a path holds nothing to report on or a file is damaged."""
    arguments = parse_arguments(ReportArguments, args, "report")
    if not arguments.paths:
        raise RecipeError(
            "no path was given", where="report", fix="Name a demo, ladder or run directory"
        )
    from isoflop.reporting.results import verdict_sentence  # numpy: not for --help
    from isoflop.reporting.write import report

    written = report(arguments.paths, arguments.out)
    verdict = written.report.verdict
    sentence = verdict_sentence(verdict) if verdict else ""
    document = {
        "report": str(written.path),
        "bytes": written.bytes,
        "verdict": sentence or None,
        "promise": asdict(verdict) | {"held": verdict.held} if verdict else None,
        "notes": list(written.report.notes),
    }
    said = f"{written.path} ({written.bytes / 1000:.0f} kB)"
    print_result(document, "\n".join(filter(None, (sentence, said))), arguments.json)
    return 0
