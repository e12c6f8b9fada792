from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from isoflop.core.errors import DataError
from isoflop.data.documents import Document, Skipped
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import read_source


def read(source: SourceConfig, seed: int = 0) -> tuple[list[Document], list[Skipped]]:
    items = list(read_source(source, seed))
    documents = [item for item in items if isinstance(item, Document)]
    return documents, [item for item in items if isinstance(item, Skipped)]


def rows(n: int) -> bytes:
    return b"".join(json.dumps({"text": f"row {i}", "n": i}).encode() + b"\n" for i in range(n))


def test_text_files_of_a_folder_become_documents_named_by_relative_path(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "deep" / "b.md").write_text("two")
    (tmp_path / "c.bin").write_text("not text")
    documents, skipped = read(SourceConfig("text", path=tmp_path, language="en"))
    assert {d.id: d.text for d in documents} == {"a.txt": "one", "deep/b.md": "two"}
    assert {d.language for d in documents} == {"en"}
    assert not skipped


def test_a_glob_picks_files(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("x/1.log", "x/2.log", "x/3.txt"):
        (tmp_path / name).write_text(name)
    documents, _ = read(SourceConfig("text", path=tmp_path / "**" / "*.log"))
    assert {d.id for d in documents} == {"x/1.log", "x/2.log"}


def test_the_order_of_files_depends_on_the_seed_and_not_on_the_folder(tmp_path: Path) -> None:
    orders = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for number in range(20):
            (tmp_path / folder / f"{number}.txt").write_text(str(number))
        orders.append([d.id for d in read(SourceConfig("text", path=tmp_path / folder))[0]])
    other = [d.id for d in read(SourceConfig("text", path=tmp_path / "here"), seed=1)[0]]
    assert orders[0] == orders[1] != other
    assert sorted(orders[0]) == sorted(other)


def test_unreadable_and_broken_text_files_are_listed_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "fine.txt").write_text("fine")
    (tmp_path / "latin.txt").write_bytes(b"one\ntwo\ncaf\xff\x81\x9f\n")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    documents, skipped = read(SourceConfig("text", path=tmp_path))
    assert [d.id for d in documents] == ["fine.txt"]
    found = {s.where: (s.reason, s.line, s.broken) for s in skipped}
    assert found == {
        "latin.txt": ("unknown encoding", 3, True),
        "gone.txt": ("unreadable file", None, True),
    }
    assert str(tmp_path) not in "".join(s.detail for s in skipped)


def test_broken_jsonl_lines_are_listed_one_by_one_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        b'{"text": "good", "id": "A", "url": "u", "language": "fr", "stars": 3}\n'
        b'{"text": "cut off\n'
        b"\n"
        b'["text"]\n'
        b'{"txt": "misnamed"}\n'
        b'{"text": 5}\n'
        b'{"text": "caf\xff\x81\x9f"}\n' + b"[" * 100_000 + b"\n"
        b'{"text": "good too"}'
    )
    documents, skipped = read(SourceConfig("jsonl", path=path))
    assert documents[0] == Document("A", "good", "jsonl", "fr", "u", {"stars": 3, "offset": 0})
    assert (documents[1].id, documents[1].text) == ("data.jsonl@100150", "good too")
    assert [(s.line, s.reason) for s in skipped] == [
        (2, "broken JSON line"),
        (4, "not a JSON object"),
        (5, "no text under `text`"),
        (6, "no text under `text`"),
        (7, "unknown encoding"),
        (8, "broken JSON line"),
    ]
    assert all(s.broken and s.where == "data.jsonl" for s in skipped)


@pytest.mark.parametrize("ending", ["", ".gz", ".zst", " in frames.zst"])
def test_compressed_jsonl_reads_like_plain(tmp_path: Path, ending: str) -> None:
    raw = rows(1000)
    zstd = zstandard.ZstdCompressor()
    content = {
        "": raw,
        ".gz": gzip.compress(raw),
        ".zst": zstd.compress(raw),
        # A frame may end anywhere, also within a line.
        " in frames.zst": zstd.compress(raw[:7777]) + zstd.compress(raw[7777:]),
    }[ending]
    path = tmp_path / f"data.jsonl{ending}"
    path.write_bytes(content)
    documents, skipped = read(SourceConfig("jsonl", path=path))
    assert [d.text for d in documents] == [f"row {i}" for i in range(1000)]
    assert not skipped


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_cut_off_archive_is_reported_and_its_whole_lines_kept(
    tmp_path: Path, ending: str
) -> None:
    # Incompressible text, so that half of the file holds about half of the lines.
    raw = b"".join(
        json.dumps({"text": "".join(chr(33 + (i * j * j) % 89) for j in range(99))}).encode()
        + b"\n"
        for i in range(5000)
    )
    packed = gzip.compress(raw) if ending == "gz" else zstandard.ZstdCompressor().compress(raw)
    path = tmp_path / f"data.jsonl.{ending}"
    path.write_bytes(packed[: len(packed) // 2])
    documents, skipped = read(SourceConfig("jsonl", path=path))
    # The last line read may itself be cut.
    assert {s.reason for s in skipped} <= {"unreadable file", "broken JSON line"}
    assert skipped[-1].reason == "unreadable file"
    assert skipped[-1].broken
    assert skipped[-1].line == len(documents) + len(skipped)


def test_a_file_that_is_no_archive_is_reported(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        (tmp_path / name).write_bytes(b"this is no archive at all")
    documents, skipped = read(SourceConfig("jsonl", path=tmp_path))
    assert not documents
    assert {s.where for s in skipped} == {"a.jsonl.gz", "a.jsonl.zst"}


def test_parquet_rows_become_documents_and_nulls_are_listed(tmp_path: Path) -> None:
    table = pa.table({"body": ["one", None, "three"], "language": ["en", "en", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but not really")
    pq.write_table(pa.table({"other": ["x"]}), tmp_path / "c.parquet")
    documents, skipped = read(SourceConfig("parquet", path=tmp_path, text_key="body"))
    assert [(d.id, d.text, d.language) for d in documents] == [
        ("a.parquet:1", "one", "en"),
        ("a.parquet:3", "three", "und"),
    ]
    assert {(s.where, s.line) for s in skipped} == {
        ("a.parquet", 2),
        ("b.parquet", 1),
        ("c.parquet", None),
    }
    assert all(s.broken for s in skipped)


def test_a_path_without_files_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no jsonl file \(\*\.jsonl.*relative to the recipe"):
        read(SourceConfig("jsonl", path=tmp_path / "nowhere"))
