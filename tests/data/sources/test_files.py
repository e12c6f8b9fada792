from __future__ import annotations

import glob
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import DataError, RecipeError
from isoflop.data import extras
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import plan_inputs
from isoflop.data.sources.files import glob_pattern

fsspec = pytest.importorskip("fsspec")
Read = Callable[..., Any]


def test_links_in_a_circle_pipes_and_sockets_are_named_and_never_waited_for(
    tmp_path: Path, read: Read
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("text")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.txt").symlink_to("self.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.txt"))
        (tmp_path / "device.txt").symlink_to("/dev/zero")
        documents, skipped = read(SourceConfig("text", path=tmp_path))
    assert [d.id for d in documents] == ["deep/a.txt"]
    found = {s.where: s.detail for s in skipped}
    assert found.keys() == {"deep/loop", "self.txt", "pipe.txt", "s.txt", "device.txt"}
    assert "links to folders" in found["deep/loop"]
    assert "FIFO" in found["pipe.txt"]
    assert "device" in found["device.txt"]
    assert all(s.broken and s.reason == "unreadable file" for s in skipped)
    assert str(tmp_path) not in str(found)


PATHS = ("a.txt", "b.md", ".hidden.txt", "x/a.txt", "x/y/a.txt", "x/y/b[1].txt", "x/.y/a.txt",
         "x/ab.txt", "xy/é.txt", "x/y/z/1.log")  # fmt: skip


@pytest.mark.parametrize(
    "pattern",
    ["*.txt", "**/*.txt", "x/*.txt", "x/**", "**", "?.txt", "x/[ab].txt", "x/[!b]*.txt", "*/*",
     "**/y/*.txt", "x/**/a.txt", "**/b[[]1].txt", "*.t?t", "x*/*.txt", "**/*.l*"],
)  # fmt: skip
def test_globs_match_as_the_shell_does(tmp_path: Path, pattern: str) -> None:
    for name in PATHS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = {
        Path(found).relative_to(tmp_path).as_posix()
        for found in glob.glob(str(tmp_path / pattern), recursive=True)
        if os.path.isfile(found)
    }
    matches = glob_pattern(pattern)
    assert {name for name in PATHS if matches.fullmatch(name)} == expected


def test_an_object_store_reads_like_a_folder(tmp_path: Path, read: Read) -> None:
    store = fsspec.filesystem("memory")
    for place in ("texts", "texts/deep"):
        (tmp_path / place).mkdir(exist_ok=True)
        for name, content in (("a.txt", b"one"), ("b.md", "caf\u00e9".encode()), ("c.bin", b"no")):
            (tmp_path / place / name).write_bytes(content)
            store.pipe(f"/bucket/{place}/{name}", content)
    url = "memory://bucket/texts"
    here = read(SourceConfig("text", path=tmp_path / "texts"))
    assert read(SourceConfig("text", url=url)) == here
    assert len(here[0]) == 4
    deep, _ = read(SourceConfig("text", url=f"{url}/**/*.md"))
    assert {d.id for d in deep} == {"b.md", "deep/b.md"}
    single, _ = read(SourceConfig("text", url=f"{url}/a.txt"))
    assert [(d.id, d.text) for d in single] == [("a.txt", "one")]
    before = plan_inputs(SourceConfig("text", url=f"{url}/a.txt"), 0)
    store.pipe("/bucket/texts/a.txt", b"changed")
    assert plan_inputs(SourceConfig("text", url=f"{url}/a.txt"), 0)[0].stamp != before[0].stamp


def test_ranges_of_a_file_in_a_store_are_read_alone(
    monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % number for number in range(1000))
    fsspec.filesystem("memory").pipe("/bucket/rows.jsonl", rows)
    source = SourceConfig("jsonl", url="memory://bucket/rows.jsonl")
    monkeypatch.setattr("isoflop.data.sources.files.SPLIT_BYTES", 1000)
    assert len(plan_inputs(source, 0)) == len(rows) // 1000 + 1
    documents, _ = read(source)
    assert sorted(d.text for d in documents) == sorted(f"row {n}" for n in range(1000))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/nowhere/a.txt", "the store cannot be read"),
        ("memory://bucket/nothing/*.txt", r"no text file.*Correct `url`"),
        ("nosuch://bucket/a.txt", "the store cannot be read: Protocol not known: nosuch"),
    ],
)
def test_a_store_that_cannot_be_read_says_why(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan_inputs(SourceConfig("text", url=url), 0)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> None:
        raise ImportError(f"No module named '{module}'")

    monkeypatch.setattr(extras.importlib, "import_module", refuse)
    for source, extra in (
        (SourceConfig("text", url="s3://bucket"), "text"),
        (SourceConfig("warc", path=Path("x")), "text"),
        (SourceConfig("huggingface", dataset="a/b"), "hf"),
    ):
        with pytest.raises(RecipeError, match=rf"pip install 'isoflop\[{extra}\]'"):
            plan_inputs(source, 0)


def test_an_unlistable_or_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text file"):
        plan_inputs(SourceConfig("text", path=tmp_path / "nowhere"), 0)
    with pytest.raises(DataError, match="no text file"):
        plan_inputs(SourceConfig("text", path=tmp_path / "nowhere" / "*.txt"), 0)
