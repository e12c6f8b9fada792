"""The whole way from paths to a report on disk; not for any step of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import write_atomic
from isoflop.reporting.collect import collect
from isoflop.reporting.page import build
from isoflop.reporting.records import Report


@dataclass(frozen=True)
class Written:
    """A report on disk."""

    path: Path
    bytes: int
    report: Report
    """The values in it."""


def report(paths: Sequence[Path | str], out: Path | str = "report.html") -> Written:
    """Make one offline HTML page of what demo, ladder and run directories, laws and ledgers hold.

    Args:
        paths: Directories or files; see `collect.collect`.
        out: The page; replaced whole or not at all.

    Raises:
        ArtifactError: A path holds nothing to report on, or a file is damaged (with its line).
    """
    found = collect([Path(p) for p in paths])
    page = build(found).encode()
    write_atomic(Path(out), page)
    return Written(Path(out), len(page), found)
