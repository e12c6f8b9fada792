from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import DataError
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import plan_inputs

Read = Callable[..., Any]
MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy"


def git(folder: Path, *arguments: str) -> str:
    who = {
        f"GIT_{role}_{what}": "x@y"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=os.environ | who, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "vendor" / "deep").mkdir(parents=True)
    git(tmp_path, "init", "-q", str(folder))
    files: dict[str, bytes] = {
        "LICENSE": MIT.encode(),
        "main.py": b"print('hello')\n",
        "README.md": b"# Read me\n",
        "logo.png": b"\x89PNG\0\0",
        "big.bin": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "vendor/COPYING": b"GNU GENERAL PUBLIC LICENSE\nVersion 3",
        "vendor/deep/x.c": b"int x;\n",
        "wide.txt": "text in UTF-16".encode("utf-16"),
        "name with\ttab \xe9.txt": b"odd",
        "odd.txt": b"caf\xff\x81\x9f",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "link.py").symlink_to("main.py")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    git(folder, "remote", "add", "origin", "https://user:secret@example.org/x/repo.git")
    (folder / "untracked.py").write_text("secret")
    return folder


def test_only_tracked_text_files_are_read_each_under_the_nearest_licence(
    checkout: Path, read: Read
) -> None:
    documents, skipped = read(SourceConfig("git", path=checkout))
    found = {d.id: (d.language, d.meta.get("license")) for d in documents}
    assert found == {
        "LICENSE": ("code", "MIT"),
        "main.py": ("code", "MIT"),
        "README.md": ("und", "MIT"),
        "vendor/COPYING": ("code", "GPL-3.0"),
        "vendor/deep/x.c": ("code", "GPL-3.0"),
        "wide.txt": ("und", "MIT"),
        "name with\ttab \xe9.txt": ("und", "MIT"),
    }
    assert {s.where: (s.reason, s.broken) for s in skipped} == {
        "logo.png": ("binary file", False),
        "big.bin": ("pointer to a large file", False),
        "odd.txt": ("unknown encoding", True),
    }


def test_the_address_has_no_password_and_the_commit_is_kept(checkout: Path, read: Read) -> None:
    documents, _ = read(SourceConfig("git", path=checkout))
    commit = git(checkout, "rev-parse", "HEAD")
    assert {d.url for d in documents} == {"https://example.org/x/repo.git"}
    assert {d.meta["commit"] for d in documents} == {commit}
    assert "secret" not in repr(documents)


def test_a_folder_within_a_checkout_is_read_alone(checkout: Path, read: Read) -> None:
    documents, _ = read(SourceConfig("git", path=checkout / "vendor"))
    assert {d.id for d in documents} == {"COPYING", "deep/x.c"}


def test_what_the_checkout_configures_is_not_run(checkout: Path, read: Read) -> None:
    ran = checkout / "ran"
    git(checkout, "config", "core.fsmonitor", f"touch {ran}")
    read(SourceConfig("git", path=checkout))
    assert not ran.exists()


def test_a_folder_without_a_checkout_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"git cannot read it: .*not a git repository"):
        plan_inputs(SourceConfig("git", path=tmp_path), 0)
    with pytest.raises(DataError, match=r"git cannot read it: .*No such file"):
        plan_inputs(SourceConfig("git", path=tmp_path / "nowhere"), 0)
    git(tmp_path, "init", "-q", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="tracks no file"):
        plan_inputs(SourceConfig("git", path=tmp_path / "empty"), 0)
