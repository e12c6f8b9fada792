"""Where a run directory stands: how far it came, what it last measured, whether it goes on.

Not for its curves (`reporting.collect`). Reads the ends of logs only, so that listing thousands of
runs is quick; takes no lock, and disturbs nothing that runs.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json
from isoflop.core.lock import LOCK

_TAIL_BYTES = 16_384
_LOGS = ("metrics.jsonl", "evals.jsonl", "events.jsonl")


@dataclass(frozen=True)
class RunState:
    """How far a run came."""

    status: str
    """`complete`, `running`, `stopped early` or `unfinished`."""
    step: int | None
    tokens: int | None
    loss: float | None
    """The last held-out loss, else the last logged one."""
    touched: float | None
    """When its logs last grew, seconds since 1970."""

    def facts(self) -> dict[str, Any]:
        """What is known, by words."""
        known = {"steps": self.step, "tokens": self.tokens, "loss": self.loss}
        return {name: value for name, value in known.items() if value is not None}

    def age_seconds(self, now: float | None = None) -> float | None:
        """Seconds since its logs last grew."""
        if self.touched is None:
            return None
        return max(0.0, (time.time() if now is None else now) - self.touched)


def run_state(directory: Path, *, finished: bool) -> RunState:
    """Where the run in `directory` stands.

    Args:
        finished: Whether it has its manifest, or whatever else marks the end of such work.

    Raises:
        ArtifactError: Its `result.json` is damaged.
    """
    last = last_row(directory / "metrics.jsonl")
    judged = last_row(directory / "evals.jsonl")
    result = directory / "result.json"
    said = read_json(result) if result.is_file() else {}
    said = said if isinstance(said, dict) else {}
    loss = _number(said, "loss")
    if loss is None:
        loss = _number(judged, "loss")
    if loss is None:
        loss = _number(last, "loss")
    return RunState(
        status=_status(directory, finished),
        step=_whole(said, "steps") or _whole(last, "step"),
        tokens=_whole(said, "tokens") or _whole(last, "tokens"),
        loss=loss,
        touched=_touched(directory),
    )


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a JSONL file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill, or cut by where the reading began
            continue
        return row if isinstance(row, dict) else {}
    return {}


def is_held(directory: Path) -> bool:
    """Whether a live process works in the directory."""
    path = directory / LOCK
    try:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return False


def _status(directory: Path, finished: bool) -> str:
    if finished:
        return "complete"
    if is_held(directory):
        return "running"
    event = last_row(directory / "events.jsonl").get("event")
    return "stopped early" if event == "stopped early" else "unfinished"


def _touched(directory: Path) -> float | None:
    times = [p.stat().st_mtime for name in _LOGS if (p := directory / name).is_file()]
    return max(times, default=None)


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and math.isfinite(float(value)) else None  # type: ignore[arg-type]


def _whole(row: dict[str, Any], key: str) -> int | None:
    value = _number(row, key)
    return None if value is None else int(value)
