"""What a process does about itself: its memory, signals, and its parent's death.

Not for the machine as a whole (`hardware.py`).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path
from types import FrameType

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h
_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Most resident memory this process has held, in bytes."""
    if _STATUS.exists():
        # VmHWM and not getrusage: that one also counts the parent's image before exec.
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_main_process() -> bool:
    """Whether this is the one that speaks for the run: of those that torchrun starts, the first."""
    return os.environ.get("RANK", "0") == "0"


def keep_freed_buffers() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel.

    By default every large activation is mapped and unmapped again at each step, and each of its
    pages faults anew; with this, a step reuses the pages of the step before (measured: 10–20 %
    of a training step on two cores). Returns whether the C library took it; others than glibc
    are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))


def die_with_parent(interval_seconds: float = 0.5) -> None:
    """End this process soon after its parent ends, however that ended.

    A worker that outlives a killed parent would go on writing into a directory that the next
    command has taken over.
    """
    # A parent that died while this process started is not our parent by the time we ask.
    spawner = parent_process()
    parent = os.getppid() if spawner is None else spawner.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()


def begin_worker() -> None:
    """What a worker process does first: leave Ctrl-C to its parent, and end when that ends."""
    # Ctrl-C reaches the whole process group: the parent decides, and ends idle workers quietly.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that it passes the word to its workers."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
