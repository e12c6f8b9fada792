"""The working folder beside an output: claimed by one process, removed when it is not needed.

Not for what lies in it (`engine`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isoflop.core.engine.task import MARKER
from isoflop.core.errors import ArtifactError, IsoflopError, RunError
from isoflop.core.lock import LOCK, locked


def work_path(out: Path) -> Path:
    """Where the finished tasks of an output are kept until it is whole."""
    return out.with_name(f"{out.name}.work")


@contextmanager
def work_folder(out: Path, keep: bool = False) -> Iterator[Path]:
    """Hold the working folder of `out`.

    It is removed on success, unless `keep`, and when the input is at fault (`IsoflopError`). It
    stays, if a task was finished, after an interrupt, a kill, a full disk or a `RunError`: the
    same command then continues.

    Raises:
        RunError: Another live process holds it.
        ArtifactError: There is another folder of that name.
    """
    work = work_path(out)
    if work.is_dir() and any(work.iterdir()) and not (work / LOCK).exists():
        raise ArtifactError(
            "this folder is in the way of the working files",
            where=str(work),
            fix="Choose another directory with -o, or remove this one",
        )
    with locked(work):
        try:
            yield work
        except RunError:
            _remove_if_empty(work, keep)
            raise
        except IsoflopError:
            if not keep:
                _remove(work)
            raise
        except BaseException:
            _remove_if_empty(work, keep)
            raise
        if not keep:
            _remove(work)


def _remove(work: Path) -> None:
    """Remove the folder, its lock last: by that a later run knows what a kill left as its own."""
    for entry in work.iterdir():
        if entry.name != LOCK:
            shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)


def _remove_if_empty(work: Path, keep: bool) -> None:
    if not keep and next(work.glob(f"*/*/{MARKER}"), None) is None:
        _remove(work)


def link_file(source: Path, target: Path) -> None:
    """Give a file of the working folder its final name too; copies where links are not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
