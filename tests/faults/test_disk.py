"""A full disk, a file that may not grow, a read-only place: one paragraph, then it goes on.

Each stage writes onto a small file system of its own (tmpfs), which is then made larger or
writable, and the same command must come to what an unbroken one came to. Only root can mount; the
limit on the size of a file works for everybody.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PAGE = 4096


def mount(*args: str) -> bool:
    """Whether `mount` with these arguments worked."""
    if os.geteuid() != 0:
        return False
    return subprocess.run(["mount", *args], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("size=64k")` mounts a file system, and changes it when called again."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted: list[bool] = []

    def make(options: str) -> Path:
        options = f"{'remount,' if mounted else ''}{options}"
        if not mount("-t", "tmpfs", "-o", options, "tmpfs", str(place)):
            pytest.skip("cannot mount a file system here")
        mounted.append(True)
        return place

    yield make
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def size_of(out: Path) -> int:
    """Bytes of a file or of everything below a directory, in whole pages."""
    files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in files)


def test_on_a_full_disk_it_says_so_and_goes_on_when_there_is_room(
    stage: Any, flow: Any, warm: Any, small_disk: Callable[[str], Path],
    content: Callable[[Path], dict[str, str]],
) -> None:  # fmt: skip
    whole = size_of(flow.root / stage.out)
    disk = small_disk(f"size={max(PAGE, whole // 3 // PAGE * PAGE)}")
    out = disk / stage.out
    ended = warm.run(stage.args(flow.root, out))
    assert "Traceback" not in ended.err, ended.err
    assert ended.code == 2, ended.err
    assert "disk is full" in ended.err, ended.err
    assert str(disk) in ended.err, "it names the place"
    small_disk("size=512m")
    ended = warm.run(stage.args(flow.root, out))
    assert ended.code in stage.ends, ended.err
    assert content(out) == flow.content[stage.name]
    assert sorted(os.listdir(disk)) == [stage.out], "nothing is left beside it"


def test_a_file_that_may_not_grow_is_one_paragraph(
    stage: Any, flow: Any, warm: Any, tmp_path: Path, content: Callable[[Path], dict[str, str]]
) -> None:
    files = [flow.root / stage.out, *(flow.root / stage.out).rglob("*")]
    largest = max(file.stat().st_size for file in files if file.is_file())
    out = tmp_path / "work" / stage.out
    out.parent.mkdir()
    ended = warm.run(stage.args(flow.root, out), largest_file=largest // 2)
    assert "Traceback" not in ended.err, ended.err
    assert ended.code == 2, ended.err
    assert "larger than allowed" in ended.err or "disk is full" in ended.err, ended.err
    ended = warm.run(stage.args(flow.root, out))
    assert ended.code in stage.ends, ended.err
    assert content(out) == flow.content[stage.name]
    assert sorted(os.listdir(out.parent)) == [stage.out], "nothing is left beside it"


def test_in_a_read_only_place_it_says_so(
    stage: Any, flow: Any, warm: Any, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=1m")
    small_disk("ro")
    out = disk / stage.out
    ended = warm.run(stage.args(flow.root, out))
    assert "Traceback" not in ended.err, ended.err
    assert ended.code == 2, ended.err
    assert str(disk) in ended.err
    assert "read-only" in ended.err
