"""A process knows its own peak, keeps its buffers, and does not outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MB = 2**20


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_peak_counts_a_known_block_and_keeps_it_after_it_is_freed() -> None:
    before, held, after = map(int, run_python(
        "from isoflop.core.process import peak_memory_bytes as peak\n"
        "before = peak(); block = bytearray(64 * 2**20); held = peak()\n"
        "del block; print(before, held, peak())"
    ).split())  # fmt: skip
    assert 64 * MB <= held - before < 68 * MB
    assert abs(after - held) < MB  # the kernel counts pages in batches


def test_the_peak_is_this_processs_own_and_not_its_parents() -> None:
    inside = run_python(
        "import subprocess, sys; block = bytearray(256 * 2**20)\n"
        "code = 'from isoflop.core.process import peak_memory_bytes as p; print(p())'\n"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True).stdout.decode())"
    )
    assert int(inside) < 128 * MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_stays_with_the_process_once_it_is_told_to_keep_it() -> None:
    code = (
        "from isoflop.core.process import keep_freed_buffers, _STATUS\n"
        "keep = {keep} and keep_freed_buffers()\n"
        "block = bytearray(64 * 2**20); del block\n"
        "row = next(x for x in _STATUS.read_text().splitlines() if x.startswith('VmRSS'))\n"
        "print(int(row.split()[1]) // 1024)"
    )
    returned, kept = (int(run_python(code.format(keep=keep))) for keep in (False, True))
    assert kept - returned > 50


CHILD = """
import os, sys, time
from multiprocessing import get_context
sys.path.insert(0, {folder!r})
from outlived import work
if __name__ == "__main__":
    child = get_context("spawn").Process(target=work, args=({folder!r}, {late}))
    child.start()
    {parent}
"""
WORK = """
import os, time
from pathlib import Path
from isoflop.core.process import die_with_parent

def work(folder, late):
    (Path(folder) / "pid").write_text(str(os.getpid()))
    time.sleep(late)
    die_with_parent(0.05)
    (Path(folder) / "watching").write_text("")
    time.sleep(60)
"""


@pytest.mark.parametrize("late", [0.0, 1.0], ids=["working", "still starting"])
def test_a_worker_ends_soon_after_its_parent_was_killed(tmp_path: Path, late: float) -> None:
    (tmp_path / "outlived.py").write_text(WORK)
    script = tmp_path / "parent.py"
    script.write_text(CHILD.format(folder=str(tmp_path), late=late, parent="time.sleep(60)"))
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path) as parent:
        _wait_for(tmp_path / ("pid" if late else "watching"))
        parent.kill()
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + late + 20
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    survived = _alive(pid)
    if survived:
        os.kill(pid, signal.SIGKILL)
    assert not survived


def test_a_worker_of_a_living_parent_is_let_be(tmp_path: Path) -> None:
    (tmp_path / "outlived.py").write_text(WORK)
    script = tmp_path / "parent.py"
    ending = "time.sleep(1.0); print(child.is_alive()); child.kill(); child.join()"
    script.write_text(CHILD.format(folder=str(tmp_path), late=0.0, parent=ending))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or (path.name == "pid" and not path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
