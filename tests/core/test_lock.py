"""One process at a time per directory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from isoflop.core import lock
from isoflop.core.errors import RunError
from isoflop.core.lock import locked

HOLDER = (
    "import sys, time; from pathlib import Path; from isoflop.core.lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def hold(directory: Path) -> subprocess.Popen[str]:
    """A process that holds `directory`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_directory_is_held_by_one_process_and_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.3)
    with hold(tmp_path / "run") as holder:
        message = rf"another process \(pid {holder.pid}\)"
        with pytest.raises(RunError, match=message) as caught, locked(tmp_path / "run"):
            pass
        holder.kill()
    assert str(caught.value).count("\n") == 0


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    with hold(tmp_path) as holder:
        holder.kill()
    began = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - began < 1.0


def test_a_holder_that_ends_within_the_patience_is_waited_for(tmp_path: Path) -> None:
    code = HOLDER.replace("60", "0.5")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with locked(tmp_path):
            pass


def test_leaving_the_block_frees_the_directory_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_a_file_in_the_place_of_the_directory_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RunError, match="a file, not a directory"), locked(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"
