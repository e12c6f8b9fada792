"""A process that has everything imported and forks a child for each command that it is told.

A script, not a test: `conftest.Warm` speaks with it over pipes. A child spends its time in the
work and not in importing torch, so that a random instant of its life is an instant of the work.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from typing import Any

import isoflop

SKIPPED = ("isoflop.__main__", "isoflop.evaluation.harness")


def import_everything() -> None:
    """Every module of the package, and with them torch, scipy and pyarrow."""
    for found in pkgutil.walk_packages(isoflop.__path__, "isoflop."):
        if not found.name.startswith(SKIPPED):
            importlib.import_module(found.name)
    import torch  # what it loads only once it is used
    import torch._dynamo
    import torch.distributed.checkpoint
    import torch.utils.tensorboard  # noqa: F401


def put_the_clock_back(seconds: float, after: float) -> None:
    """From `after` seconds on, the time of day is `seconds` earlier, as after a bad NTP step."""
    real, began = time.time, time.monotonic()
    gmtime = time.gmtime

    def jumped() -> float:
        return real() - (seconds if time.monotonic() - began > after else 0.0)

    time.time = jumped
    time.gmtime = lambda at=None: gmtime(jumped() if at is None else at)


def be_child(command: dict[str, Any]) -> int:
    """Run one command as `python -m isoflop` would."""
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.update(command.get("environment", {}))
    if limit := command.get("largest_file"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # python does the same
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if clock := command.get("clock"):
        put_the_clock_back(*clock)
    from isoflop.cli.main import main

    try:
        code = main(command["args"])
    except Exception:  # noqa: BLE001 - what would be a traceback is to be seen as one
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve() -> None:
    """For each line of stdin a child: its pid on stdout, then how it ended and when."""
    import_everything()
    print("warm", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(be_child(command))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)


if __name__ == "__main__":
    serve()
