"""What work will take, said before it starts: time, memory, disk; not how any of them is foretold.

Every costly command has `--plan`. It shows a `Foresight`; at a terminal it then asks, elsewhere
(a pipe, CI, `--json`) it stops there, so that a script that asks never starts work by surprise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.console import format_seconds


@dataclass(frozen=True)
class Span:
    """A foretold number and the ends that nine in ten should lie between."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Span:
        """The same, so many times."""
        return Span(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Foresight:
    """What a piece of work will take. What cannot be told is None."""

    seconds: Span | None
    memory_bytes: int | None
    """Most memory held at once, weights and activations."""
    disk_bytes: int | None
    """Written below the output directory, at most at any time."""
    basis: tuple[str, ...] = ()
    """What it rests on, a sentence each."""

    def document(self) -> dict[str, Any]:
        """The JSON of `--plan --json`."""
        return {"plan": {**vars(self), "basis": list(self.basis)}}

    def text(self, out: Path, free_bytes: int | None) -> str:
        """Three lines, and what they rest on."""
        free = "" if free_bytes is None else f" ({_size(free_bytes)} free at {out})"
        lines = [
            f"time    {_time(self.seconds)}",
            f"memory  {_size(self.memory_bytes)}",
            f"disk    {_size(self.disk_bytes)}{free}",
            *(f"  {each}" for each in self.basis),
        ]
        needed, room = self.disk_bytes, free_bytes
        if needed is not None and room is not None and needed > room:
            lines.append("  the disk has too little room")
        return "\n".join(lines)


def may_ask(json_mode: bool) -> bool:
    """Whether there is somebody to answer: both ends are a terminal, and no JSON is wanted."""
    return not json_mode and sys.stdin.isatty() and sys.stdout.isatty()


def ask(question: str) -> bool:
    """Whether the answer begins with y; the end of the input is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower().startswith("y")
    except EOFError:
        return False


def _time(seconds: Span | None) -> str:
    if seconds is None:
        return "not foretold"
    low, high = format_seconds(seconds.low), format_seconds(seconds.high)
    return f"{format_seconds(seconds.value)} ({low} to {high})"


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "not foretold"
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if n_bytes >= 1000**power:
            return f"{n_bytes / 1000**power:.3g} {unit}"
    return f"{n_bytes} B"
