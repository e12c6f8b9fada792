"""Which files a report can be made from lie at the given paths; opens none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isoflop.core.artifact import MANIFEST
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import LEDGER
from isoflop.reporting.stage_read import alignment_stage, is_compressed

_METRICS = "isoflop:"
"""What the names of a server's metrics begin with."""
_DEMO_PARTS = (
    "corpus", "tokenizer", "shards", "ladder", "target", "model", "instructions", "sft",
    "practice", "grpo", "evaluation", "int8", "serving",
)  # fmt: skip
_LOOKED_INTO = ("corpus", "ladder", "sft", "grpo", "int8", "serving")
"""Parts of a demo that have more to show than where they came from."""


@dataclass
class Found:
    """Which files the given paths hold; filled while they are looked at."""

    summary: Path | None = None
    ledgers: list[Path] = field(default_factory=list)
    law: Path | None = None
    funnel: Path | None = None
    abilities: Path | None = None
    tables: list[Path] = field(default_factory=list)
    runs: list[tuple[Path, bool]] = field(default_factory=list)
    """Run directories and whether each is the target."""
    artifacts: list[tuple[str, Path]] = field(default_factory=list)
    aligned: list[tuple[Path, str]] = field(default_factory=list)
    """Runs of alignment and which stage each is; not among `runs`."""
    compressed: list[Path] = field(default_factory=list)
    served: list[Path] = field(default_factory=list)
    """Metrics of servers."""
    exchanges: Path | None = None
    scores: Path | None = None
    """Of the finished model of a demo."""


def locate(paths: Sequence[Path]) -> Found:
    """Look at each path, in order; of two laws the later counts.

    Raises:
        ArtifactError: A path does not exist or holds nothing to report on.
    """
    found = Found()
    for path in paths:
        _look(path, found)
    return found


def _look(path: Path, found: Found) -> None:
    if not path.exists():
        raise ArtifactError("no such file or directory", where=str(path))
    if path.is_file():
        _look_at_file(path, found)
    elif not _look_at_directory(path, found):
        raise ArtifactError(
            "there is nothing to report on here: no summary.json, runs.csv, metrics.jsonl, "
            "law.json or ledger.jsonl",
            where=str(path),
            fix="Give a demo, ladder or run directory, a law.json or a ledger.jsonl",
        )


def _look_at_file(path: Path, found: Found) -> None:
    if path.suffix == ".csv":
        found.tables.append(path)
    elif path.suffix == ".jsonl":
        found.ledgers.append(path)
    elif path.suffix == ".json":
        found.law = path
    elif path.suffix in (".prom", ".txt") and _METRICS in path.read_text("utf-8", "replace"):
        found.served.append(path)
    else:
        raise ArtifactError(
            "reports are not made from this kind of file",
            where=str(path),
            fix="Give a demo, ladder or run directory, a compressed model, a law.json, a "
            "ledger.jsonl, or what a server's /metrics said as a .prom or .txt file",
        )


def _look_at_directory(directory: Path, found: Found) -> bool:
    """Note what the directory holds; whether it holds anything."""
    hits = 0
    for name, attribute in (
        ("summary.json", "summary"),
        ("law.json", "law"),
        ("funnel.json", "funnel"),
        ("abilities.json", "abilities"),
        ("exchanges.json", "exchanges"),
    ):
        if (directory / name).is_file():
            setattr(found, attribute, directory / name)
            hits += 1
    for path in sorted(directory.glob("*.prom")):
        found.served.append(path)
        hits += 1
    if (directory / LEDGER).is_file():
        found.ledgers.append(directory / LEDGER)
        hits += 1
    if (directory / "runs.csv").is_file():
        found.tables.append(directory / "runs.csv")
        hits += 1
    if _is_run(directory):
        stage = alignment_stage(directory)
        if stage:
            found.aligned.append((directory, stage))
        else:
            found.runs.append((directory, False))
        hits += 1
    elif is_compressed(directory):
        found.compressed.append(directory)
        hits += 1
    if (directory / MANIFEST).is_file():
        found.artifacts.append((directory.resolve().name, directory))
    for run in sorted((directory / "runs").glob("*/")):
        if _is_run(run):
            found.runs.append((run, False))
            hits += 1
    if found.summary == directory / "summary.json":
        _look_at_demo(directory, found)
    return hits > 0


def _look_at_demo(demo: Path, found: Found) -> None:
    for name in _DEMO_PARTS:
        part = demo / name
        if name in _LOOKED_INTO and part.is_dir():
            _look_at_directory(part, found)
        elif (part / MANIFEST).is_file():
            found.artifacts.append((name, part))
    if (demo / "evaluation" / "results.json").is_file():
        found.scores = demo / "evaluation" / "results.json"
    if _is_run(demo / "target"):
        found.runs.append((demo / "target", True))


def _is_run(directory: Path) -> bool:
    return (directory / "metrics.jsonl").is_file() or (directory / "evals.jsonl").is_file()
