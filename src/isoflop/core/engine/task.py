"""One task: what it is made of, how it is run, and the marker that says it is done.

Not for choosing where tasks run (`placement`) nor which there are (`engine`).
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from isoflop.core.artifact import fsync_directory, sha256_file, sha256_json
from isoflop.core.errors import ArtifactError, IsoflopError, RunError

MARKER = "task.json"
_FINGERPRINT_CHARACTERS = 16


@dataclass
class Work:
    """What a task's function is given.

    A function is pure and idempotent: it reads `value`, `parameters` and `inputs`, writes files
    into `out`, and returns its statistics as plain JSON values.
    """

    value: Any
    """What sets this task apart from its siblings; plain JSON values."""
    parameters: Any
    """What all tasks of the stage share; plain JSON values."""
    inputs: tuple[Path, ...]
    """The directories of the outputs that it reads."""
    out: Path
    """The directory to write into; it exists and is empty."""
    threads: int = 1
    """How many threads it may use; its output must not depend on it."""
    place: str = ""
    """Where in the data it stands, for a message if it fails; the function keeps it up to date."""


Function = Callable[[Work], dict[str, Any]]


@dataclass(frozen=True)
class Output:
    """What a finished task left behind."""

    directory: Path
    statistics: dict[str, Any]
    files: dict[str, str]
    """Name → SHA-256 of every file it wrote."""

    @cached_property
    def sha256(self) -> str:
        """Hash of all that a later task can read of it."""
        return sha256_json(self.files)


@dataclass(frozen=True)
class Task:
    """A task written down; nothing else decides its output."""

    stage: str
    name: str
    function: str
    """`package.module:name`."""
    value: Any
    parameters: Any
    inputs: tuple[str, ...]
    directory: str
    """Where its output goes; the name ends with the task's fingerprint."""
    bytes: int
    """How much work it is, for the order of tasks and the progress."""

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.stage} {self.name}"


def make_task(
    folder: Path,
    stage: str,
    name: str,
    function: Function,
    value: Any,
    parameters: Any,
    inputs: tuple[Output, ...],
    n_bytes: int,
) -> Task:
    """A task whose output directory is named by a hash of code, parameters and inputs."""
    path = f"{function.__module__}:{function.__qualname__}"
    fingerprint = sha256_json(
        {
            "code": code_version(),
            "function": path,
            "value": value,
            "parameters": parameters,
            "inputs": [output.sha256 for output in inputs],
        }
    )
    directory = folder / stage / f"{name}-{fingerprint[:_FINGERPRINT_CHARACTERS]}"
    return Task(
        stage=stage,
        name=name,
        function=path,
        value=value,
        parameters=parameters,
        inputs=tuple(str(output.directory) for output in inputs),
        directory=str(directory),
        bytes=n_bytes,
    )


@cache
def code_version() -> str:
    """Hash of every module of the package: other code may give other output."""
    package = Path(__file__).parents[2]
    sources = sorted(package.rglob("*.py"))
    return sha256_json({p.relative_to(package).as_posix(): sha256_file(p) for p in sources})


def read_output(task: Task) -> Output | None:
    """The output of a task that is finished, else None.

    Raises:
        ArtifactError: Its marker was changed or damaged.
    """
    directory = Path(task.directory)
    try:
        marker = json.loads((directory / MARKER).read_text("utf-8"))
        return Output(directory, marker["statistics"], marker["files"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"the marker of a finished task cannot be read: {error}",
            where=str(directory / MARKER),
            fix="Remove this folder, then run the same command again",
        ) from None


def run_task(task: Task, threads: int = 1) -> None:
    """Run a task, unless it is finished, and publish its output.

    The files are written aside, hashed and fsynced, then the marker, then all of it is renamed
    into place at once: a crash at any instant leaves a whole output or none.

    Raises:
        RunError: The function failed in a way nobody foresaw; says at which piece of the data.
        IsoflopError, OSError: As the function or the disk raises them.
    """
    target = Path(task.directory)
    if (target / MARKER).exists():
        return
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir(parents=True)
    try:
        work = Work(
            task.value, task.parameters, tuple(map(Path, task.inputs)), aside, threads, task.label
        )
        statistics = _call(task, work)
        files = {path.name: _settle(path) for path in sorted(aside.iterdir())}
        marker = {"statistics": statistics, "files": files}
        (aside / MARKER).write_text(json.dumps(marker, ensure_ascii=False), "utf-8")
        _settle(aside / MARKER)
        _publish(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _call(task: Task, work: Work) -> dict[str, Any]:
    module, _, name = task.function.partition(":")
    function: Function = getattr(importlib.import_module(module), name)
    try:
        return function(work)
    except (IsoflopError, OSError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        code = f"{Path(last.filename).name}:{last.lineno}"
        raise RunError(
            f"{type(error).__name__}: {error} ({code})",
            where=f"{task.label}, {work.place}" if work.place != task.label else task.label,
            fix="What was finished stays; the same command continues once this is mended",
        ) from error


def _settle(path: Path) -> str:
    """Make a file survive a power cut; returns its SHA-256."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return sha256_file(path)


def _publish(aside: Path, target: Path) -> None:
    fsync_directory(aside)
    try:
        os.rename(aside, target)
    except OSError:
        # A worker of a killed command was as fast: its output is the same, by construction.
        if not (target / MARKER).exists():
            raise
        shutil.rmtree(aside, ignore_errors=True)
    # A power cut may undo the renaming; the task is then run again.
