"""What a command says while it works (stderr) and when it is done (stdout); not for log files."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_LINES_IN_CI = 60.0
TRUSTED_SECONDS = 30.0


class Progress(Protocol):
    """How long work tells where it stands. One piece of work at a time."""

    def start(self, label: str, total: float, unit: str) -> None:
        """Begin a piece of work of `total` units; seconds predicted for it are a fine unit."""

    def advance(self, done: float, note: str = "") -> None:
        """Say that `done` units in all (not since the last call) are done."""

    def finish(self, summary: str = "") -> None:
        """End the piece of work."""

    def note(self, text: str) -> None:
        """Say something at once, beside the progress."""


def make_progress(json_mode: bool = False) -> Progress:
    """A bar on a terminal; lines, at most one in five seconds, elsewhere and in JSON mode; at most
    one in a minute where `CI` is set, as services that test set it."""
    if os.environ.get("CI"):
        return PlainProgress(between_seconds=SECONDS_BETWEEN_LINES_IN_CI)
    plain = json_mode or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return PlainProgress() if plain else RichProgress()


def warn(text: str) -> None:
    """Tell the user something that is not an error, on stderr."""
    print(f"isoflop: {text}", file=sys.stderr, flush=True)


# --- how long it will take -----------------------------------------------------------------


class Pace:
    """Seconds still to go, from the units done and the time they took.

    The pace is the mean since the work began, or since the first report of work already done
    when it came at once (a resumed run), so that it does not count what an earlier run did.

    Args:
        total: Units of the whole work.
        now: The time, in seconds.
        unit: Where the units are predicted seconds, the prediction counts as `TRUSTED_SECONDS`
            of work at that very pace: a slow start does not turn ten minutes into an hour.
    """

    def __init__(self, total: float, now: float, unit: str = "") -> None:
        self.total, self.began = total, now
        self.trust = TRUSTED_SECONDS if unit == "seconds" else 0.0
        self.first_done, self.first_at = 0.0, now
        self.done, self.at = 0.0, now
        self.reported = False

    def advance(self, done: float, now: float) -> None:
        """Record that `done` units in all were done at the time `now`, in seconds."""
        if not self.reported and now - self.began < 1.0:
            self.first_done, self.first_at = done, now
        self.reported = True
        self.done, self.at = done, now

    def seconds_left(self, now: float) -> float | None:
        """Seconds to go as of `now`, or None while the pace is unknown."""
        work, seconds = self.done - self.first_done, self.at - self.first_at
        if work + self.trust <= 0 or seconds + self.trust <= 0:
            return None
        left = (self.total - self.done) * (seconds + self.trust) / (work + self.trust)
        return max(0.0, left - (now - self.at))

    @property
    def fraction(self) -> float:
        """The share that is done, 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 1.0


def format_seconds(seconds: float) -> str:
    """A duration in words: `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _position(pace: Pace, unit: str, now: float) -> str:
    """`12 %, 34 s gone, about 4 min 10 s left`."""
    done, total = f"{pace.done:,.4g}", f"{pace.total:,.4g}"
    if pace.total >= 1000:
        done, total = f"{pace.done:,.0f}", f"{pace.total:,.0f}"
    left = pace.seconds_left(now)
    eta = f"about {format_seconds(left)} left" if left is not None else "time left not known yet"
    amount = f" ({done} of {total} {unit})" if unit not in ("s", "seconds") else ""
    return f"{pace.fraction:.0%}{amount}, {format_seconds(now - pace.began)} gone, {eta}"


# --- the three ways ------------------------------------------------------------------------


class SilentProgress:
    """Says nothing: for libraries and tests."""

    def start(self, label: str, total: float, unit: str) -> None:
        """Nothing."""

    def advance(self, done: float, note: str = "") -> None:
        """Nothing."""

    def finish(self, summary: str = "") -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


SILENT: Progress = SilentProgress()


class PlainProgress:
    """Lines of text for logs and pipes.

    Args:
        between_seconds: Least time from one line on where the work stands to the next.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        between_seconds: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        self._stream, self._clock, self._between = stream, clock, between_seconds
        self._label, self._unit, self._spoke = "", "", 0.0
        self._pace: Pace | None = None

    def start(self, label: str, total: float, unit: str) -> None:
        """Say what begins."""
        now = self._clock()
        self._label, self._unit, self._pace = label, unit, Pace(total, now, unit)
        self._spoke = now
        self.note(f"{label} …")

    def advance(self, done: float, note: str = "") -> None:
        """Say where the work stands, unless a line was printed just now."""
        if self._pace is None:
            return
        now = self._clock()
        self._pace.advance(done, now)
        if now - self._spoke >= self._between:
            self._spoke = now
            tail = f", {note}" if note else ""
            self.note(f"{self._label}: {_position(self._pace, self._unit, now)}{tail}")

    def finish(self, summary: str = "") -> None:
        """Say that it is done, how long it took, and the summary."""
        if self._pace is None:
            return
        seconds = format_seconds(self._clock() - self._pace.began)
        self.note(f"{self._label}: done in {seconds}{f', {summary}' if summary else ''}")
        self._pace = None

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream or sys.stderr, flush=True)


class RichProgress:
    """A bar with an estimate of the time left, for a terminal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._label, self._unit = "", ""
        self._pace: Pace | None = None
        self._bar: RichBar | None = None
        self._task: TaskID | None = None

    def start(self, label: str, total: float, unit: str) -> None:
        """Open a bar; one still open is closed first."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichBar

        self._close()
        self._label, self._unit, self._pace = label, unit, Pace(total, self._clock(), unit)
        self._bar = RichBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[position]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        position = _position(self._pace, unit, self._clock())
        self._task = self._bar.add_task(label, total=1.0, position=position)
        self._bar.start()

    def advance(self, done: float, note: str = "") -> None:
        """Move the bar."""
        if self._bar is None or self._task is None or self._pace is None:
            return
        now = self._clock()
        self._pace.advance(done, now)
        position = _position(self._pace, self._unit, now) + (f", {note}" if note else "")
        self._bar.update(self._task, completed=self._pace.fraction, position=position)

    def finish(self, summary: str = "") -> None:
        """Replace the bar by one line."""
        if self._pace is None:
            return
        seconds = format_seconds(self._clock() - self._pace.began)
        self._close()
        self.note(f"{self._label}: done in {seconds}{f', {summary}' if summary else ''}")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task, self._pace = None, None, None


# --- results -------------------------------------------------------------------------------


def print_result(document: Mapping[str, Any], text: str, json_mode: bool) -> None:
    """Print the result on stdout: the document as JSON in JSON mode, else the text."""
    print(json_text(document) if json_mode else text, flush=True)


def json_text(document: Mapping[str, Any]) -> str:
    """Indented JSON; paths as text, dataclasses as objects, numbers that are not finite as null."""
    # A terminal of another encoding gets escapes, which every JSON reader turns back.
    ascii_only = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") != "utf8"
    return json.dumps(_jsonable(document), indent=2, ensure_ascii=ascii_only, allow_nan=False)


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # a numpy number, without importing numpy
        return _jsonable(value.item())
    return value
