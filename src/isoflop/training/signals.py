"""SIGTERM and SIGINT as a request that is honoured between two steps; not the answer to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Whether a signal came."""

    signal_number: int | None = None
    """Which; None while none came."""


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a request that the loop honours between two steps."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number

    try:
        old = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
