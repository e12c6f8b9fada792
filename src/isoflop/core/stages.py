"""One progress, with one time left, over several pieces of work; not for showing it (`console`)."""

from __future__ import annotations

from collections.abc import Mapping

from isoflop.core.console import Progress


class Stages:
    """Lays pieces of work with predicted seconds end to end on one progress.

    Args:
        outer: Shows the whole.
        label: What the whole is called.
        seconds: Predicted seconds of each stage by name, in the order in which they run.
    """

    def __init__(self, outer: Progress, label: str, seconds: Mapping[str, float]) -> None:
        self._outer, self._seconds = outer, dict(seconds)
        outer.start(label, sum(seconds.values()), "seconds")

    def stage(self, name: str) -> Progress:
        """The progress of one stage; what it reports moves the whole."""
        names = list(self._seconds)
        before = sum(self._seconds[n] for n in names[: names.index(name)])
        self._outer.advance(before, name)
        return _Stage(self._outer, name, before, self._seconds[name])

    def finish(self, summary: str = "") -> None:
        """End the whole."""
        self._outer.finish(summary)


class _Stage:
    """One stage: `Progress` scaled into its place of the whole."""

    def __init__(self, outer: Progress, name: str, before: float, seconds: float) -> None:
        self._outer, self._name, self._before, self._seconds = outer, name, before, seconds
        self._total = 1.0

    def start(self, label: str, total: float, unit: str) -> None:
        self._total = max(total, 1e-9)

    def advance(self, done: float, note: str = "") -> None:
        share = min(1.0, done / self._total)
        tail = f": {note}" if note else ""
        self._outer.advance(self._before + share * self._seconds, self._name + tail)

    def finish(self, summary: str = "") -> None:
        if summary:
            self._outer.note(f"{self._name}: {summary}")

    def note(self, text: str) -> None:
        self._outer.note(text)
