"""Artifacts: whole or absent under exceptions, SIGKILL and full disks; manifests tell the truth."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from isoflop.core.artifact import (
    MANIFEST,
    atomic_file,
    build_directory,
    read_json,
    read_manifest,
    sha256_file,
    sha256_json,
    write_atomic,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError


def make(path: Path, text: str = "content", kind: str = "corpus") -> None:
    with build_directory(path) as inside:
        (inside / "data.txt").write_text(text)
        write_manifest(inside, kind=kind, config={"seed": 1}, machine={"cpu": "x"}, seed=1)


def test_a_file_written_atomically_holds_the_content_and_leaves_nothing_beside(
    tmp_path: Path,
) -> None:
    write_atomic(tmp_path / "deep" / "a.txt", "é")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "é".encode()
    assert os.listdir(tmp_path / "deep") == ["a.txt"]


def test_an_exception_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with suppress(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_sigkill_during_atomic_writes_leaves_a_whole_file_old_or_new(tmp_path: Path) -> None:
    loop = (
        "import sys; from pathlib import Path; from isoflop.core.artifact import write_atomic\n"
        "for i in range(10**9):\n"
        "    write_atomic(Path(sys.argv[1]), str(i % 10) * 300_000)\n"
        "    if i == 0: print('first', flush=True)\n"
    )
    path = tmp_path / "a.txt"
    for round_ in range(4):
        worker = subprocess.Popen(
            [sys.executable, "-c", loop, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "first\n"
        time.sleep(0.004 * round_)
        worker.send_signal(signal.SIGKILL)
        worker.stdout.close()
        worker.wait()
        text = path.read_text()
        assert len(text) == 300_000
        assert len(set(text)) == 1


FILLS = (
    "import sys; from pathlib import Path; from isoflop.core.artifact import write_atomic\n"
    "try: write_atomic(Path(sys.argv[1]), 'x' * 3_000_000)\n"
    "except OSError as error: print(error.errno, error.filename)\n"
)


def test_a_file_size_limit_keeps_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + FILLS, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(errno.EFBIG), str(path)]
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        path = disk / "a.txt"
        write_atomic(path, "old")
        done = subprocess.run(
            [sys.executable, "-c", FILLS, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [str(errno.ENOSPC), str(path)]
        assert path.read_text() == "old"
        assert os.listdir(disk) == ["a.txt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_directory_appears_whole_and_its_manifest_vouches_for_every_file(
    tmp_path: Path,
) -> None:
    make(tmp_path / "corpus")
    manifest = read_manifest(tmp_path / "corpus", "corpus", verify=True)
    assert manifest.files == {"data.txt": hashlib.sha256(b"content").hexdigest()}
    assert (manifest.status, manifest.seed) == ("complete", 1)
    assert os.listdir(tmp_path) == ["corpus"]


def test_a_failed_build_keeps_the_old_directory(tmp_path: Path) -> None:
    make(tmp_path / "corpus", "old")
    with suppress(ZeroDivisionError), build_directory(tmp_path / "corpus") as inside:
        (inside / "data.txt").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "corpus" / "data.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["corpus"]


def test_a_new_build_replaces_the_old_one(tmp_path: Path) -> None:
    make(tmp_path / "corpus", "old")
    make(tmp_path / "corpus", "new")
    assert (tmp_path / "corpus" / "data.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["corpus"]


def test_a_directory_that_is_not_ours_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("dear")
    with pytest.raises(ArtifactError, match="not an Isoflop artifact"):
        make(tmp_path)
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_what_a_killed_build_left_is_removed_by_the_next_and_a_live_one_is_let_be(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    abandoned = tmp_path / f".corpus.{ended.pid}.partial"
    alive = tmp_path / f".corpus.{os.getppid()}.partial"
    for directory in (abandoned, alive):
        directory.mkdir()
        (directory / "half.txt").write_text("half")
    make(tmp_path / "corpus")
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, "corpus"])


def test_a_changed_file_is_found_by_its_hash(tmp_path: Path) -> None:
    make(tmp_path / "corpus")
    (tmp_path / "corpus" / "data.txt").write_text("changed")
    read_manifest(tmp_path / "corpus")
    with pytest.raises(ArtifactError, match=r"data\.txt: .*differs from its hash"):
        read_manifest(tmp_path / "corpus", verify=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: (path / MANIFEST).unlink(), "not a finished corpus"),
        (lambda path: (path / MANIFEST).write_text("{"), r"manifest\.json:1: not valid JSON"),
        (lambda path: (path / MANIFEST).write_text("[]"), "not one that Isoflop"),
        (
            lambda path: (path / MANIFEST).write_text('{"isoflop_version": "9.9"}'),
            r"it says 9\.9",
        ),
    ],
)
def test_an_unusable_manifest_is_a_clear_error(tmp_path: Path, spoil, words: str) -> None:
    make(tmp_path / "corpus")
    spoil(tmp_path / "corpus")
    with pytest.raises(ArtifactError, match=words):
        read_manifest(tmp_path / "corpus", "corpus")


def test_another_kind_of_artifact_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "run", kind="run")
    with pytest.raises(ArtifactError, match="this is a run, not a corpus"):
        read_manifest(tmp_path / "run", "corpus")
    with pytest.raises(ArtifactError, match="no such corpus directory"):
        read_manifest(tmp_path / "none", "corpus")


def test_json_is_written_readably_and_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"中": [1.5, None]})
    assert "中" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"中": [1.5, None]}
    with pytest.raises(ArtifactError, match="no such file"):
        read_json(tmp_path / "b.json")


def test_hashes_are_sha256_and_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
