"""Seconds of each stage of some work, over all its sessions, kept on disk.

Not for showing progress (`console`, `stages`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isoflop.core.artifact import read_json, write_json


class StageClock:
    """Adds up the wall-clock seconds of named stages in a JSON file.

    A stage that is interrupted counts what it took, and one that is killed what it had taken at
    the last beat.

    Args:
        path: The file, `{stage: seconds}`; it need not exist.
        beat_seconds: How often a stage in progress is written down.
    """

    def __init__(self, path: Path, beat_seconds: float = 2.0) -> None:
        self._path, self._beat_seconds = path, beat_seconds
        self._seconds: dict[str, float] = read_json(path) if path.exists() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside; one stage at a time."""
        before, began = self._seconds.get(name, 0.0), time.monotonic()
        over = threading.Event()

        def write() -> None:
            self._seconds[name] = before + time.monotonic() - began
            write_json(self._path, self._seconds)

        def beat() -> None:
            while not over.wait(self._beat_seconds):
                with suppress(OSError):  # a full disk is for the stage itself to meet and tell
                    write()

        beating = threading.Thread(target=beat, daemon=True, name=f"clock of {name}")
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            write()

    def seconds(self) -> dict[str, float]:
        """Stage → seconds so far."""
        return dict(self._seconds)

    def total(self) -> float:
        """Seconds of all stages so far."""
        return sum(self._seconds.values())
