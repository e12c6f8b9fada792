"""Programs that would do harm, each contained, and programs that would not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from isoflop.core.sandbox import Limits, protections, run_program, run_programs

QUICK = Limits(seconds=1.0)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def test_a_program_that_ends_is_ok_and_its_output_is_kept():
    ran = run_program("import math\nprint('héllo 你好', math.comb(5, 2))")
    assert (ran.status, ran.stdout, ran.error) == ("ok", "héllo 你好 10\n", "")


def test_what_is_wrong_with_a_program_is_said():
    ran = run_program("assert 1 + 1 == 3, 'sums'")
    assert (ran.status, ran.error) == ("failed", "AssertionError: sums")
    assert "SyntaxError" in run_program("def f(:").error
    assert "UnicodeEncodeError" in run_program("x = '\ud800'").error


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_leaving_early_is_not_success(leave):
    ran = run_program(f"{leave}\nassert False")
    assert (ran.status, ran.error) == ("failed", "left before its end")


@pytest.mark.parametrize("wait", ["while True: pass", "import time; time.sleep(60)"])
def test_a_program_without_end_runs_out_of_time(wait):
    ran = run_program(wait, QUICK)
    assert ran.status == "timeout"
    assert ran.seconds < 30  # not a minute's sleep; how long a busy machine takes is not at stake


@on_linux
def test_ten_gigabytes_are_not_to_be_had():
    ran = run_program("x = bytearray(10 * 2**30)")
    assert (ran.status, ran.error) == ("memory", "asked for more memory than it may have")


def test_endless_output_is_cut_off():
    ran = run_program("while True: print('x' * 10000)", Limits(output_bytes=100_000))
    assert ran.status == "output"
    assert len(ran.stdout) <= 100_000


def test_files_are_written_in_its_own_directory_alone(tmp_path: Path):
    target = tmp_path / "outside"
    assert run_program("open('a', 'w').write('b'); assert open('a').read() == 'b'").ok
    ran = run_program(f"open({str(target)!r}, 'w')")
    assert ran.status == "failed"
    assert "PermissionError" in ran.error
    target.write_text("kept")
    for harm in ("os.remove(p)", "os.rename(p, p + 'x')", "os.truncate(p, 0)", "open(p).read()"):
        assert "PermissionError" in run_program(f"import os; p = {str(target)!r}\n{harm}").error
    assert target.read_text() == "kept"


@on_linux
def test_a_file_that_fills_the_disk_is_stopped():
    ran = run_program("open('a', 'w').write('x' * 10**8)", Limits(seconds=20))
    assert "File too large" in ran.error


@pytest.mark.parametrize(
    "harm",
    [
        "import socket; socket.socket()",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.system('true')",
        "import ctypes; ctypes.CDLL(None)",
    ],
)
def test_sockets_processes_and_machine_code_are_refused(harm):
    ran = run_program(harm)
    assert ran.status == "failed"
    assert "Error" in ran.error


# The kernel's layers are tried by calls that Python does not audit.


@pytest.mark.skipif("seccomp" not in protections(), reason="no seccomp here")
def test_the_kernel_refuses_a_fork_bomb_that_python_lets_pass():
    bomb = """
import _posixsubprocess, os
fds = os.pipe()
while True:
    _posixsubprocess.fork_exec(
        [b'/bin/true'], [b'/bin/true'], True, (), None, None, -1, -1, -1, -1, -1, -1,
        *fds, True, True, 0, None, None, None, -1, None, False)
"""
    ran = run_program(bomb)
    assert ran.status == "failed"
    assert "Operation not permitted" in ran.error


@pytest.mark.skipif("landlock" not in protections(), reason="no landlock here")
def test_the_kernel_refuses_a_file_outside_that_python_lets_pass(tmp_path: Path):
    ran = run_program(f"import os; os.mknod({str(tmp_path / 'node')!r})")
    assert "Permission denied" in ran.error
    assert not (tmp_path / "node").exists()
    assert run_program("import os; os.mknod('node')").ok


def test_many_programs_come_back_in_their_order_and_leave_nothing(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    sources = [f"open('x', 'w'); print({i})" if i % 3 else "1 / 0" for i in range(9)]
    found = run_programs(sources, workers=4)
    expected = [f"{i}\n" if i % 3 else "" for i in range(9)]
    assert [ran.stdout for ran in found] == expected
    assert {ran.error for ran in found if not ran.ok} == {"ZeroDivisionError: division by zero"}
    assert not list(tmp_path.iterdir())
    assert run_program("import os; print(os.environ.get('HOME'))").stdout == "None\n"
    assert os.getcwd() != str(tmp_path)
