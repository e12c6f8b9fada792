"""Starts a program in the jail, waits no longer than allowed, and says how it ended.

Not for what the jail forbids (`jail.py`, which is the process's own first program).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

JAIL = Path(__file__).with_name("jail.py")
_READ = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float = 5.0
    """Of wall time, and as many of processor time."""
    memory_bytes: int = 512 * 2**20
    """Of address space."""
    output_bytes: int = 2**20
    """Of standard output and standard error together; it is ended where it writes more."""
    file_bytes: int = 2**20
    """Of each file in its own empty directory, the only place where it may write."""


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    status: Literal["ok", "failed", "timeout", "memory", "output"]
    """ok: it came to its end, which `sys.exit` is not. memory: it asked for more than allowed."""
    stdout: str
    error: str
    """The last line of its traceback, or what ended it; empty when ok."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it came to its end."""
        return self.status == "ok"


def run_program(source: str, limits: Limits | None = None) -> Ran:
    """Run Python source in a process of its own, without network, other processes, or files
    outside an empty directory.

    Nothing that the program does raises here: it is all in the result. How well it is contained
    depends on the system: see `protections`.
    """
    limits = limits or Limits()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="isoflop-sandbox-", ignore_cleanup_errors=True) as own:
        verdict_read, verdict_write = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(JAIL), str(verdict_write)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                cwd=own, env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}, start_new_session=True,
                pass_fds=(verdict_write,),
            )  # fmt: skip
        except BaseException:
            os.close(verdict_read)
            raise
        finally:
            os.close(verdict_write)
        with process, os.fdopen(verdict_read, encoding="utf-8", errors="replace") as verdicts:
            status, stdout = _watch(process, json.dumps([asdict(limits), source]), limits)
            verdict = verdicts.read()
    seconds = time.monotonic() - began
    if status is not None:
        return Ran(status, stdout, _WHY[status], seconds)
    kind, _, error = verdict.partition(":")
    if kind in ("ok", "memory", "failed"):
        return Ran(kind, stdout, error, seconds)  # type: ignore[arg-type]
    ended = process.returncode
    if ended == -signal.SIGXCPU:
        return Ran("timeout", stdout, _WHY["timeout"], seconds)
    why = f"ended by {signal.Signals(-ended).name}" if ended < 0 else "left before its end"
    return Ran("failed", stdout, why, seconds)


_WHY: dict[str, str] = {
    "timeout": "ran out of time",
    "output": "wrote more than it may",
    "memory": "asked for more memory than it may have",
}


def run_programs(
    sources: Sequence[str], limits: Limits | None = None, workers: int | None = None
) -> list[Ran]:
    """`run_program` for many, as many at a time as there are cores."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda source: run_program(source, limits), sources))


@cache
def protections() -> tuple[str, ...]:
    """What contains a program on this system, weakest first.

    `limits` of time, memory and sizes; `audit`, by which Python itself refuses files, sockets and
    processes; `landlock`, by which Linux keeps files out of reach; `seccomp`, by which Linux
    refuses sockets and processes. The last two hold for any machine code.
    """
    ran = run_program("import json\nprint(json.dumps(__protections__))")
    return tuple(json.loads(ran.stdout)) if ran.ok else ()


def _watch(
    process: subprocess.Popen[bytes], task: str, limits: Limits
) -> tuple[Literal["timeout", "output"] | None, str]:
    """Feed it, read it, and end it where it goes too far; what it wrote to standard output."""
    reader = _Reader(process, limits.output_bytes)
    threads = [
        threading.Thread(target=_feed, args=(process, task.encode("utf-8", "surrogatepass"))),
        threading.Thread(target=reader.read, args=(process.stdout, True)),
        threading.Thread(target=reader.read, args=(process.stderr, False)),
    ]
    for thread in threads:
        thread.start()
    status: Literal["timeout", "output"] | None = None
    try:
        process.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        status = "timeout"
    finally:
        _end(process)
        for thread in threads:
            thread.join()
    if reader.over:
        status = "output"
    return status, bytes(reader.kept).decode("utf-8", "replace")


class _Reader:
    """Reads both streams to their ends, keeps standard output, and ends who writes too much."""

    def __init__(self, process: subprocess.Popen[bytes], most: int) -> None:
        self.kept = bytearray()
        self.over = False
        self._process, self._left = process, most

    def read(self, stream: IO[bytes] | None, keep: bool) -> None:
        while stream is not None and (part := os.read(stream.fileno(), _READ)):
            self._left -= len(part)
            if self._left < 0:
                self.over = True
                _end(self._process)
                return
            if keep:
                self.kept += part


def _feed(process: subprocess.Popen[bytes], task: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(task)
        process.stdin.close()
    except BrokenPipeError:  # it ended before it had read everything
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole session, which holds whatever the program managed to start."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
