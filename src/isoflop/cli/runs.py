"""`isoflop runs`: a table of what lies below a folder; not for finding it (`reporting`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import format_seconds, print_result

if TYPE_CHECKING:
    from isoflop.reporting.inventory.runs import Row


@dataclass(frozen=True, kw_only=True)
class RunsArguments(Arguments):
    """List every run and artifact below a folder, the newest last, and how to continue those that
    are unfinished."""

    directory: Positional[Path] = Path()
    """Where to look; six folders deep."""
    all: bool = False
    """Also the parts of others: the runs of a ladder, the model of a run."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless there is no such folder."""
    arguments = parse_arguments(RunsArguments, args, "runs")
    from isoflop.reporting.inventory.runs import list_runs

    rows = list_runs(arguments.directory, every=arguments.all)
    document = {"directory": arguments.directory, "runs": [asdict(row) for row in rows]}
    print_result(document, "\n".join(_page(rows, arguments.directory)), arguments.json)
    return 0


def _page(rows: Sequence[Row], top: Path) -> Iterator[str]:
    if not rows:
        yield f"{top}: no runs and no artifacts; `isoflop demo` makes some"
        return
    heads: tuple[str, ...] = ("path", "kind", "status", "age", "steps", "tokens", "loss")
    table = [heads, *(_cells(row, top) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        left = "  ".join(cell.ljust(w) for cell, w in zip(line[:3], widths[:3], strict=True))
        right = "  ".join(cell.rjust(w) for cell, w in zip(line[3:], widths[3:], strict=True))
        yield f"{left}  {right}".rstrip()
    for row in rows:
        if row.note:
            yield f"\n{row.path}: {row.note}"
        if row.continued_by:
            yield f"\nto go on with {row.path}:"
            yield from (f"  {command.line}" for command in row.continued_by)


def _cells(row: Row, top: Path) -> tuple[str, ...]:
    near = row.path.relative_to(top) if row.path.is_relative_to(top) else row.path
    kind = f"{row.kind} ({row.stage})" if row.kind == "run" and row.stage else row.kind
    return (
        str(near),
        kind,
        row.status,
        "" if row.age_seconds is None else format_seconds(row.age_seconds),
        "" if row.step is None else f"{row.step:,}",
        "" if row.tokens is None else f"{row.tokens:,}",
        "" if row.loss is None else f"{row.loss:.4f}",
    )
