"""Input that was made to break readers: each piece is counted, named and survived."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from isoflop.data.clean_recipe import SpellingConfig
from isoflop.data.corpus import build
from isoflop.data.normalise import Normaliser
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.sources import plan_inputs, read_split

Read = Callable[..., Any]
GOOD = b'{"text": "good"}\n'


def jsonl(tmp_path: Path, content: bytes, **more: Any) -> SourceConfig:
    (tmp_path / "x.jsonl").write_bytes(content)
    return SourceConfig("jsonl", path=tmp_path / "x.jsonl", **more)


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "broken JSON line", "nested more than 100 deep"),
        (b'{"text": "x", "m": ' + b'{"a":' * 10_000, "broken JSON line", "nested more than 100"),
        (b'{"text": "x", "m": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
         "broken JSON line", "nested"),
        (b'{"text": "one", "text": "two"}', "broken JSON line", "`text` is there twice"),
        (b'{"text": "x", "n": ' + b"9" * 5_000 + b"}", "broken JSON line", "4300 digits"),
        (b'{"text": "\x00"}', "broken JSON line", "control character"),
        (b'{"text": "caf\xff\x81"}', "unknown encoding", "0xff"),
        (b'\x1f\x8b\x08 not text', "unknown encoding", ""),
        (b'{"text": "' + b"a" * 5_000 + b'"}', "line over 0.004 MB", ""),
        (b'{"text": null}', "no text under `text`", "keys: none"),
        (b'"text"', "not a JSON object", "it is a str"),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_bad_line_is_named_by_line_and_place_and_its_neighbours_are_read(
    tmp_path: Path, read: Read, line: bytes, reason: str, detail: str
) -> None:
    cap = 4_000 if reason.startswith("line over") else 1_000_000
    source = jsonl(tmp_path, GOOD + line + b"\n" + GOOD, max_document_bytes=cap)
    documents, skipped = read(source)
    assert [d.text for d in documents] == ["good", "good"]
    assert [(s.where, s.line, s.offset, s.bytes, s.reason, s.broken) for s in skipped] == [
        ("x.jsonl", 2, len(GOOD), len(line), reason, True)
    ]
    assert detail in skipped[0].detail


def test_brackets_within_strings_are_not_depth(tmp_path: Path, read: Read) -> None:
    text = "[{" * 10_000 + '\\"]'
    documents, _ = read(jsonl(tmp_path, json.dumps({"text": text}).encode()))
    assert documents[0].text == text


def test_lone_surrogates_nuls_and_nan_reach_a_corpus_without_harm(tmp_path: Path) -> None:
    lines = [
        '{"text": "lone \\ud800 surrogate", "id": "a\\udfff", "url": "u\\ud800", "k\\ud800": "v"}',
        '{"text": "pair \\ud83d\\ude00", "x": NaN, "y": [Infinity, -Infinity]}',
        '{"text": "nul \\u0000 inside"}',
        *(json.dumps({"text": f"filler {number}"}) for number in range(40)),
    ]
    corpus = build(
        DataRecipe((jsonl(tmp_path, "\n".join(lines).encode()),), 0.3), tmp_path / "corpus"
    )
    rows = [
        row
        for split in ("train", "held_out")
        for t in corpus.row_groups(split, ["id", "text", "url", "meta"])
        for row in t.to_pylist()
    ]
    found = {row["text"]: row for row in rows}
    assert found["lone  surrogate\n"]["id"] == "a\ufffd"
    assert json.loads(found["lone  surrogate\n"]["meta"])["k\ufffd"] == "v"
    meta = {"x": None, "y": [None, None], "offset": len(lines[0]) + 1}
    assert json.loads(found["pair 😀\n"]["meta"]) == meta
    assert "nul  inside\n" in found


def test_a_file_in_two_encodings_is_refused_and_lines_in_two_are_read(
    tmp_path: Path, read: Read
) -> None:
    chinese = "清晨的街道上还没有什么人，只有卖豆浆的老王推着小车慢慢走过。"
    both = chinese.encode() + b"\n" + chinese.encode("gb18030")
    (tmp_path / "x.txt").write_bytes(both)
    documents, skipped = read(SourceConfig("text", path=tmp_path / "x.txt"))
    assert not documents
    assert [(s.reason, s.line) for s in skipped] == [("unknown encoding", 2)]
    lines = [
        json.dumps({"text": chinese}, ensure_ascii=False).encode(codec)
        for codec in ("utf-8", "gb18030", "big5hkscs")
        if codec != "big5hkscs" or chinese.encode(codec, "ignore").decode(codec) == chinese
    ]
    documents, skipped = read(jsonl(tmp_path, b"\n".join(lines)))
    assert [d.text for d in documents] == [chinese] * len(lines)
    assert not skipped


@pytest.mark.parametrize("kind", ["text", "html"])
def test_a_binary_file_under_a_name_of_text_is_named_with_its_first_control_character(
    tmp_path: Path, read: Read, kind: str
) -> None:
    path = tmp_path / ("x.txt" if kind == "text" else "x.html")
    path.write_bytes(b"one\ntw\0o\n")
    documents, skipped = read(SourceConfig(kind, path=path))  # type: ignore[arg-type]
    assert not documents
    assert [(s.reason, s.line, s.broken) for s in skipped] == [("unknown encoding", 2, True)]
    assert "byte 0x00 in position 6" in skipped[0].detail


def test_mojibake_that_was_saved_as_text_is_repaired_by_the_spelling(
    tmp_path: Path, read: Read
) -> None:
    pytest.importorskip("ftfy")
    (tmp_path / "x.txt").write_bytes("L’été à la côte".encode().decode("cp1252").encode())
    documents, _ = read(SourceConfig("text", path=tmp_path / "x.txt"))
    assert documents[0].text != "L’été à la côte"
    normalise = Normaliser(SpellingConfig(mojibake=True))
    assert normalise(documents[0].text) == "L’été à la côte\n"


def test_damaged_parquet_is_named(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"text": [f"text {n}" * 50 for n in range(3000)]}), path, row_group_size=500
    )
    whole = path.read_bytes()
    for content in (
        whole[:-100],
        whole[:5000],
        b"",
        b"PAR1",
        whole[:2000] + b"\0" * 400 + whole[2400:],
    ):
        path.write_bytes(content)
        documents, skipped = read(SourceConfig("parquet", path=path))
        assert len(documents) < 3000
        assert [(s.where, s.reason, s.broken) for s in skipped] == [
            ("x.parquet", "unreadable file", True)
        ]


def test_large_parquet_is_cut_between_row_groups(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"{n} " + os.urandom(30).hex() for n in range(3000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=250)
    source = SourceConfig("parquet", path=path, max_document_bytes=100)
    whole, _ = read(source)
    for module in ("files", "parquet"):
        monkeypatch.setattr(f"isoflop.data.sources.{module}.SPLIT_BYTES", 30_000)
    splits = plan_inputs(source, 0)
    assert len(splits) > 3
    cut = [item for split in splits for item in read_split(source, split)]
    assert sorted(cut, key=lambda d: d.id) == sorted(whole, key=lambda d: d.id)
    assert [d.meta["offset"] for d in whole] == list(range(1, 3001))


# --- memory --------------------------------------------------------------------------------

MEASURE = """
import json, resource, sys
from pathlib import Path
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from isoflop.data.documents import Document
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import read_source
items = [
    (i.id, len(i.text)) if isinstance(i, Document) else (i.where, i.reason + " " + i.detail)
    for i in read_source(SourceConfig(sys.argv[1], path=Path(sys.argv[2])), 0)
]
print(json.dumps([items, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def measure(kind: str, path: Path, limit: int = 2_000_000_000) -> tuple[list[list[Any]], int]:
    """What a source gives in a process that cannot have more memory, and its peak in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, str(path), str(limit)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    items, peak = json.loads(done.stdout)
    return items, peak


def fill(path: Path, size: int, head: bytes, tail: bytes) -> Path:
    """A sparse file: a head, zeros, a tail."""
    with open(path, "wb") as file:
        file.write(head)
        file.seek(size)
        file.write(tail)
    return path


@pytest.mark.slow
def test_a_line_of_two_gigabytes_is_skipped_in_little_memory(tmp_path: Path) -> None:
    path = fill(tmp_path / "x.jsonl", 2_100_000_000, GOOD, b"\n" + GOOD)
    items, peak = measure("jsonl", path)
    assert [text for _, text in items if isinstance(text, int)] == [4, 4]
    assert sum("line over 32 MB" in str(text) for _, text in items) == 1
    assert peak < 500_000_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "html", "wikipedia", "git", "warc"])
def test_other_readers_bound_their_memory_too(tmp_path: Path, kind: str) -> None:
    name = {
        "text": "x.txt",
        "html": "x.html",
        "wikipedia": "x.xml",
        "git": "x.py",
        "warc": "x.warc",
    }
    head = {"wikipedia": b"<mediawiki><page>", "warc": (
        b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\n"
        b"Content-Length: 2100000000\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    )}  # fmt: skip
    path = fill(tmp_path / name[kind], 2_100_000_000, head.get(kind, b""), b"</page>")
    if kind == "git":
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        subprocess.run(["git", "add", "-N", "x.py"], cwd=tmp_path, check=True)
    items, peak = measure(kind, tmp_path if kind == "git" else path)
    assert any("over 32 MB" in str(text) for _, text in items)
    assert peak < 1_000_000_000


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_archives_that_are_bombs_are_stopped(tmp_path: Path, ending: str) -> None:
    zeros = b"\0" * 100_000_000
    pack = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": zstandard.ZstdCompressor(19).compress,
    }
    path = tmp_path / f"x.jsonl{ending}"
    path.write_bytes(pack[ending](zeros) * 20)
    items, peak = measure("jsonl", path)
    assert any("a bomb" in str(text) for _, text in items)
    assert peak < 1_000_000_000


@pytest.mark.slow
def test_a_parquet_file_of_huge_texts_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a" * 40_000_000] * 20 + ["small"]}), path)
    items, peak = measure("parquet", path)
    assert sum("text over 32 MB" in str(text) for _, text in items) == 20
    assert items[-1] == ["x.parquet:21", 5]
    assert peak < 2_000_000_000


def test_the_measuring_process_has_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    items, peak = measure("text", tmp_path / "x.txt")
    assert items == [["x.txt", 4]]
    assert peak > 10_000_000
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 2_000_000_000
