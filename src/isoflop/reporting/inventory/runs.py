"""The table of `isoflop runs`: every run and artifact below a directory; opens no large file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import MANIFEST
from isoflop.core.errors import ArtifactError
from isoflop.reporting.inventory.commands import Command, continued_by
from isoflop.reporting.inventory.identify import Thing, identify

DEEPEST = 6
_CLOSED = ("checkpoints", "tensorboard", "ranks", "rollouts", "node_modules")


@dataclass(frozen=True)
class Row:
    """One run or artifact directory."""

    path: Path
    kind: str
    stage: str
    status: str
    """As `Thing.status`, or `damaged`."""
    created: str | None
    """UTC, ISO 8601; None while unfinished."""
    step: int | None
    tokens: int | None
    loss: float | None
    age_seconds: float | None
    """Since it was finished, or since its logs last grew."""
    continued_by: tuple[Command, ...]
    """Commands that go on with it; empty where it is finished."""
    note: str = ""
    """What is damaged."""


def list_runs(directory: Path | str = ".", *, every: bool = False) -> tuple[Row, ...]:
    """Every run and artifact directory below `directory`, newest last.

    Args:
        every: Also the parts of others: a ladder's runs, a run's model.

    Raises:
        ArtifactError: There is no such directory.
    """
    top = Path(directory)
    if not top.is_dir():
        raise ArtifactError("no such directory", where=str(top), fix="Check the path")
    now = time.time()
    rows = [_row(path, now) for path in _directories(top, every, 0)]
    return tuple(sorted(rows, key=lambda row: -(row.age_seconds or 0.0)))


def _directories(directory: Path, every: bool, depth: int) -> Iterator[Path]:
    mine = _is_ours(directory)
    if mine:
        yield directory
    if depth >= DEEPEST or (mine and not every and not _is_demo(directory)):
        return
    try:
        names = sorted(
            entry.name
            for entry in os.scandir(directory)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
    except OSError:  # not ours to read
        return
    for name in names:
        if name not in _CLOSED:
            yield from _directories(directory / name, every, depth + 1)


def _is_ours(directory: Path) -> bool:
    if (directory / MANIFEST).is_file() or _is_demo(directory):
        return True
    config = directory / "config.json"
    return (config.is_file() and (directory / "events.jsonl").is_file()) or (
        config.is_file() and (directory / "runs").is_dir()
    )


def _is_demo(directory: Path) -> bool:
    return (directory / "demo.json").is_file()


def _row(path: Path, now: float) -> Row:
    try:
        thing = identify(path)
    except ArtifactError as error:
        note = f"{error.what}: {error.where}"
        return Row(path, "unknown", "", "damaged", None, None, None, None, None, (), note)
    run, manifest = thing.run, thing.manifest
    return Row(
        path=path,
        kind=thing.kind,
        stage=thing.stage,
        status=thing.status,
        created=manifest.created if manifest else None,
        step=run.step if run else None,
        tokens=run.tokens if run else None,
        loss=run.loss if run else None,
        age_seconds=_age(thing, now),
        continued_by=continued_by(thing),
    )


def _age(thing: Thing, now: float) -> float | None:
    if thing.manifest is not None:
        return max(0.0, now - (thing.path / MANIFEST).stat().st_mtime)
    if thing.run is not None:
        return thing.run.age_seconds(now)
    return max(0.0, now - thing.path.stat().st_mtime)
