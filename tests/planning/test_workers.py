"""Workers end with their parent, however it ends, and a killed one is an error, not a wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isoflop.core.errors import RunError
from isoflop.planning.workers import workers

SCRIPT = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
from work_of_test import work
from isoflop.planning.workers import workers
if __name__ == "__main__":
    # A shell starts its background jobs with Ctrl-C ignored; a test runner may be one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with workers(2, Path({folder!r})) as pool:
        asked = [pool.submit(work, {folder!r}) for _ in range(2)]
        print([f.result() for f in asked])
"""
WORK = """
import os, signal, time
from pathlib import Path

def work(folder):
    def note(number, frame):
        (Path(folder) / f"told-{os.getpid()}").write_text(signal.Signals(number).name)
        raise SystemExit
    signal.signal(signal.SIGTERM, note)
    (Path(folder) / f"busy-{os.getpid()}").write_text("")
    time.sleep(60)
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A parent with two busy workers in a process group of their own."""
    (folder / "work_of_test.py").write_text(WORK)
    script = folder / "parent.py"
    script.write_text(SCRIPT.format(folder=str(folder)))
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(found := list(folder.glob("busy-*"))) < 2:
        assert parent.poll() is None, parent.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return parent, [int(path.name.split("-")[1]) for path in found]


def gone(pids: list[int], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [
            pid
            for pid in pids
            if Path(f"/proc/{pid}").exists()
            and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        ]
        if not alive:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("whom", ["the parent", "the whole group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_parent_tells_its_workers_before_it_ends(
    tmp_path: Path, number: signal.Signals, whom: str
) -> None:
    parent, pids = start(tmp_path)
    with parent:
        if whom == "the parent":
            parent.send_signal(number)
        else:  # as Ctrl-C in a terminal, or `timeout`, does
            os.killpg(parent.pid, number)
        _, err = parent.communicate(timeout=60)
    assert gone(pids)
    told = {path.read_text() for path in tmp_path.glob("told-*")}
    assert told == {"SIGTERM"}
    assert "SpawnProcess" not in err, "workers print no traceback of their own"


def test_workers_of_a_killed_parent_end_by_themselves(tmp_path: Path) -> None:
    parent, pids = start(tmp_path)
    with parent:
        parent.kill()
    assert gone(pids)


def test_a_worker_that_is_killed_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="a worker process was killed") as caught,
        workers(1, tmp_path / "ladder") as pool,
    ):
        pool.submit(os._exit, 9).result()
    assert str(caught.value).startswith(str(tmp_path / "ladder"))
    assert "Run the same command again; it continues" in str(caught.value)


def test_an_error_of_the_work_itself_arrives_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError), workers(1, tmp_path) as pool:
        pool.submit(json.loads, "{").result()
