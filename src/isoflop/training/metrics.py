"""The logs of a run: JSON lines that a resumed run continues exactly, and TensorBoard events.

Not for drawing them (`reporting`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from isoflop.core.errors import ArtifactError

LOGS = ("metrics.jsonl", "evals.jsonl", "samples.jsonl", "forecasts.jsonl")
"""Logs that belong to the run's content: cut back to the checkpoint when it resumes."""
EVENTS = "events.jsonl"
"""What happened to the run (started, resumed, interrupted, anomalies): only ever grows."""


RANKS = "ranks"
"""Directory of the other ranks' logs."""


class RunLog:
    """Appends rows to the JSON-lines files of a run directory."""

    def __init__(self, directory: Path, *, tensorboard: bool, start_step: int) -> None:
        self._directory = directory
        with ExitStack() as opening:  # closes what is open already if one of them fails
            self._files: dict[str, IO[bytes]] = {
                name: opening.enter_context(open(directory / name, "ab"))
                for name in (*LOGS, EVENTS)
            }
            self._open = opening.pop_all()
        self._tensorboard = None
        if tensorboard:
            # Imported here: it costs a second that a run without it need not pay.
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(directory / "tensorboard"), purge_step=start_step)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one row to the file `name`."""
        file = self._files[name]
        file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        # Whole lines at once: whoever watches the run sees each as it comes, and a kill tears none.
        file.flush()
        if self._tensorboard is not None and name in LOGS[:2]:
            group = name.removesuffix(".jsonl")
            for key, value in row.items():
                if isinstance(value, int | float) and key not in ("step", "tokens"):
                    self._tensorboard.add_scalar(f"{group}/{key}", value, row["step"])

    def sync(self) -> dict[str, int]:
        """Force everything to disk and return the length in bytes of each content log."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: (self._directory / name).stat().st_size for name in LOGS}

    def close(self) -> None:
        """Write what is left and close the files."""
        with self._open:
            self.sync()
        if self._tensorboard is not None:
            self._tensorboard.close()


class RankLog:
    """What another rank than the main one would write, in one file of its own that only grows."""

    def __init__(self, directory: Path, rank: int) -> None:
        (directory / RANKS).mkdir(exist_ok=True)
        self._file = open(directory / RANKS / f"rank_{rank:05d}.jsonl", "ab")  # noqa: SIM115

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one row, with the name of the file that it would be in."""
        line = json.dumps({"log": name.removesuffix(".jsonl"), **row}, ensure_ascii=False)
        self._file.write((line + "\n").encode())
        self._file.flush()

    def sync(self) -> dict[str, int]:
        """Force everything to disk; none of it is the run's content."""
        os.fsync(self._file.fileno())
        return {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_log(directory: Path, rank: int, *, tensorboard: bool, start_step: int) -> RunLog | RankLog:
    """The run's own log on the main rank, one beside it on the others."""
    if rank:
        return RankLog(directory, rank)
    return RunLog(directory, tensorboard=tensorboard, start_step=start_step)


def log_checksums(directory: Path, lengths: Mapping[str, int]) -> dict[str, int]:
    """CRC-32 of the first `lengths` bytes of each content log."""
    found = {}
    for name, length in lengths.items():
        with open(directory / name, "rb") as file:
            found[name] = zlib.crc32(file.read(length))
    return found


def cut_logs(
    directory: Path, lengths: Mapping[str, int], checksums: Mapping[str, int] | None = None
) -> None:
    """Cut the content logs back to `lengths` bytes: a resumed run writes the rest again.

    Of the events, only a last line that a full disk left unfinished is cut.

    Raises:
        ArtifactError: What is kept of a log is not what was written, by its checksum.
    """
    for name, told in (checksums or {}).items():
        path = directory / name
        if not path.exists() or log_checksums(directory, {name: lengths[name]})[name] != told:
            raise ArtifactError(
                "the log is missing or differs from its checksum at the last checkpoint",
                where=str(path),
                fix="Restore it from a copy, or start the run anew in another directory with -o",
            )
    for name in LOGS:
        path = directory / name
        if path.exists():
            os.truncate(path, min(lengths.get(name, 0), path.stat().st_size))
    events = directory / EVENTS
    if events.exists():
        os.truncate(events, events.read_bytes().rfind(b"\n") + 1)
