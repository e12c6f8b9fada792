"""The whole way from paths to a report on disk; not for any step of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isoflop.core.artifact import write_atomic
from isoflop.reporting.collect import collect
from isoflop.reporting.page import build
from isoflop.reporting.records import Report
from isoflop.reporting.stage_records import Comparison


@dataclass(frozen=True)
class Written:
    """A report on disk."""

    path: Path
    bytes: int
    report: Report
    """The values in it."""


def report(
    paths: Sequence[Path | str],
    out: Path | str = "report.html",
    *,
    comparison: Comparison | None = None,
    shade: Path | str | None = None,
) -> Written:
    """Make one offline HTML page of what runs, ladders, models, laws and ledgers hold.

    Args:
        paths: Directories or files; see `collect.collect`. None where there is a comparison only.
        out: The page; replaced whole or not at all.
        comparison: Two of them side by side.
        shade: The model that wrote the samples: its surprise at each token is shown.

    Raises:
        ArtifactError: A path holds nothing to report on, or a file is damaged (with its line).
    """
    found = collect([Path(p) for p in paths]) if paths else Report(title="Report", created="")
    if comparison is not None:
        title = f"{comparison.first} and {comparison.second}"
        found = replace(found, comparison=comparison, title=title)
    if shade is not None:
        from isoflop.reporting.shade import shaded  # torch

        found = shaded(found, shade)
    page = build(found).encode()
    write_atomic(Path(out), page)
    return Written(Path(out), len(page), found)
