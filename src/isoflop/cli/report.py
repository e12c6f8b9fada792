"""`isoflop report`: what was done as one HTML page; not for what the page says."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.artifact import MANIFEST, read_manifest
from isoflop.core.console import print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.reporting.stage_records import Comparison


@dataclass(frozen=True)
class ReportArguments(Arguments):
    """Write one HTML page that opens without a network and reads without scripts."""

    paths: Positional[tuple[Path, ...]]
    """Demo, ladder or run directories, those of sft, reward, dpo, ppo, grpo, compress and eval,
    `law.json`, `ledger.jsonl` or `runs.csv` files, a server's /metrics as a .prom file."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")] = Path("report.html")
    """The page to write."""
    compare: bool = False
    """Set two of them side by side: runs, demos, evaluations (paired by item), or two reports."""
    shade: Annotated[Path | None, arg(metavar="MODEL")] = None
    """The model that wrote the samples: show how much each token surprised it."""
    live: bool = False
    """Serve the page on this machine while a run goes on; Ctrl-C ends it."""
    port: int = 0
    """Of --live; 0 takes any free one."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless a path holds nothing to report on or a file is damaged."""
    arguments = parse_arguments(ReportArguments, args, "report")
    if not arguments.paths:
        raise RecipeError(
            "no path was given", where="report", fix="Name a demo, ladder or run directory"
        )
    if arguments.live:
        return _live(arguments)
    from isoflop.reporting.results import verdict_sentence  # numpy: not for --help
    from isoflop.reporting.write import report

    comparison = _compare(arguments.paths) if arguments.compare else None
    shown = _reported(arguments.paths) if arguments.compare else arguments.paths
    written = report(shown, arguments.out, comparison=comparison, shade=arguments.shade)
    verdict = written.report.verdict
    sentence = verdict_sentence(verdict) if verdict else ""
    document = {
        "report": str(written.path),
        "bytes": written.bytes,
        "verdict": sentence or None,
        "promise": asdict(verdict) | {"held": verdict.held} if verdict else None,
        "comparison": None if comparison is None else asdict(comparison),
        "notes": list(written.report.notes),
    }
    said = f"{written.path} ({written.bytes / 1000:.0f} kB)"
    print_result(document, "\n".join(filter(None, (sentence, said))), arguments.json)
    return 0


def _live(arguments: ReportArguments) -> int:
    from isoflop.reporting.live import serve_live

    def ready(address: str) -> None:
        print_result({"address": address}, f"{address}   (Ctrl-C ends it)", arguments.json)

    try:
        serve_live(arguments.paths, arguments.port, ready)
    except KeyboardInterrupt:  # how it is meant to end
        print(file=sys.stderr)
    return 0


def _compare(paths: tuple[Path, ...]) -> Comparison:
    if len(paths) != 2:
        raise RecipeError(
            f"--compare takes two paths, not {len(paths)}",
            where="report",
            fix="Name two runs, two demos, two evaluations or two reports",
        )
    from isoflop.reporting.figures import beside, document_of, figures_of
    from isoflop.reporting.stage_records import Comparison, Paired

    first, second = paths
    names = _names(first, second)
    if _is_evaluation(first) and _is_evaluation(second):
        from isoflop.evaluation.side_by_side import side_by_side

        rows = [
            Paired(each.task, each.first, each.second, None, note=each.note)
            if (found := each.difference) is None
            else Paired(
                each.task, each.first, each.second, found.value, found.low, found.high, found.p,
                found.n, each.note,
            )
            for each in side_by_side(first, second)
        ]  # fmt: skip
        return Comparison(*names, tuple(rows))
    figures = [figures_of(document_of(path)) for path in paths]
    return Comparison(*names, beside(*figures))


def _names(first: Path, second: Path) -> tuple[str, str]:
    one, other = first.resolve(), second.resolve()
    if one.name != other.name:
        return one.name, other.name
    return f"{one.parent.name}/{one.name}", f"{other.parent.name}/{other.name}"


def _reported(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those that have sections of their own: neither pages nor evaluations."""
    return tuple(
        p for p in paths if p.suffix.lower() not in (".html", ".htm") and not _is_evaluation(p)
    )


def _is_evaluation(path: Path) -> bool:
    return (path / MANIFEST).is_file() and read_manifest(path).kind == "evaluation"
