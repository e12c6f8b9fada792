"""One process at a time per directory; the lock dies with its holder, however it dies.

Not for threads, nor for machines that share a file system without locks.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isoflop.core.errors import RunError

LOCK = ".lock"
_PATIENCE_SECONDS = 3.0
"""Workers of a killed command notice within a second; wait for them before giving up."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process.

    Raises:
        RunError: Another live process holds it, or it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise RunError(
            "this is a file, not a directory",
            where=str(directory),
            fix="Choose another directory with -o",
        )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    with open(path, "a+") as file:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    raise RunError(
                        f"another process (pid {holder}) is working in this directory",
                        where=str(directory),
                        fix="Wait for it, stop it, or choose another directory with -o",
                    ) from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
