from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.data.documents import Document
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import plan_inputs, read_split

Read = Callable[..., Any]
HEAD = (
    b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="zh">\n'
    b"  <siteinfo><sitename>W</sitename><base>https://zh.wikipedia.org/wiki/Main</base></siteinfo>\n"
)
TAIL = b"</mediawiki>\n"


def page(number: int, text: str = "", namespace: int = 0, extra: str = "") -> bytes:
    text = text or f"'''港口 {number}'''&lt;ref&gt;x&lt;/ref&gt; &amp;amp; [[sea|the sea]]. " * (
        number % 7 + 1
    )
    return (
        f"  <page>\n    <title>Page {number} &amp; co</title>\n    <ns>{namespace}</ns>\n"
        f"    <id>{number}</id>{extra}\n    <revision><id>9{number}</id>\n      "
        f'<text bytes="9" xml:space="preserve">{text}</text></revision>\n  </page>\n'
    ).encode()


PAGES = [page(number) for number in range(1, 60)]
DUMP = HEAD + b"".join(PAGES) + TAIL


def streams(content: bytes, size: int) -> bytes:
    """bzip2 streams of equal parts, wherever they cut, as parallel compressors make them."""
    return b"".join(bz2.compress(content[i : i + size]) for i in range(0, len(content), size))


ARCHIVES = {
    "a.xml": DUMP,
    "a.xml.gz": gzip.compress(DUMP),
    "one stream.xml.bz2": bz2.compress(DUMP),
    # As Wikimedia makes them: head, some pages each, tail.
    "multistream.xml.bz2": b"".join(
        map(bz2.compress, [HEAD, *(b"".join(PAGES[i : i + 9]) for i in range(0, 59, 9)), TAIL])
    ),
    "cut anywhere.xml.bz2": streams(DUMP, 777),
    "cut in tags.xml.bz2": streams(DUMP, 23),
}


def test_an_article_keeps_title_address_licence_and_language(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.xml").write_bytes(DUMP)
    documents, skipped = read(SourceConfig("wikipedia", path=tmp_path))
    assert not skipped
    assert len(documents) == len(PAGES)
    assert documents[0] == Document(
        "a.xml:1", "Page 1 & co\n\n港口 1 & the sea. 港口 1 & the sea.", "wikipedia", "zh",
        "https://zh.wikipedia.org/wiki/Page_1_%26_co",
        {"license": "CC-BY-SA-4.0", "title": "Page 1 & co", "offset": len(HEAD) + 2},
    )  # fmt: skip


@pytest.mark.parametrize("size", [211, 7_001, 10**9])
@pytest.mark.parametrize("name", ARCHIVES)
def test_every_article_is_read_once_however_the_dump_is_packed_and_cut(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name])
    monkeypatch.setattr("isoflop.data.sources.files.SPLIT_BYTES", size)
    source = SourceConfig("wikipedia", path=tmp_path)
    documents, skipped = read(source)
    assert not skipped
    ids = [d.id.rpartition(":")[2] for d in documents]
    assert sorted(map(int, ids)) == list(range(1, 60))
    assert all("port" not in d.text and "港口" in d.text for d in documents)
    if name == "a.xml":
        assert all(DUMP[d.meta["offset"] :].startswith(b"<page>") for d in documents)


def test_each_stream_of_a_multistream_dump_is_a_split_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "multistream.xml.bz2"
    (tmp_path / name).write_bytes(ARCHIVES[name])
    monkeypatch.setattr("isoflop.data.sources.files.SPLIT_BYTES", 300)
    source = SourceConfig("wikipedia", path=tmp_path)
    counts = [len(list(read_split(source, split))) for split in plan_inputs(source, 0)]
    assert max(counts) <= 18
    assert sum(counts) == 59


def test_redirects_talk_and_empty_pages_are_counted(tmp_path: Path, read: Read) -> None:
    redirect = page(1, "#REDIRECT [[X]]", extra='\n<redirect title="X" />')
    content = HEAD + redirect + page(2, namespace=1) + page(3, "{{stub}}") + page(4) + TAIL
    (tmp_path / "a.xml").write_bytes(content)
    documents, skipped = read(SourceConfig("wikipedia", path=tmp_path, license="CC-BY-3.0"))
    assert [d.meta["license"] for d in documents] == ["CC-BY-3.0"]
    assert [s.reason for s in skipped] == [
        "a redirect", "not an article", "no text in the article",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gz", "one stream.xml.bz2", "multistream.xml.bz2"])
def test_a_cut_dump_gives_its_whole_pages_and_says_so(
    tmp_path: Path, read: Read, name: str
) -> None:
    content = ARCHIVES[name]
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    documents, skipped = read(SourceConfig("wikipedia", path=tmp_path))
    assert [(s.reason, s.broken) for s in skipped] == [("unreadable file", True)]
    assert "cut off" in skipped[0].detail
    assert len(documents) > 30 or name == "one stream.xml.bz2"


def test_a_page_over_the_cap_is_skipped_and_the_next_one_read(tmp_path: Path, read: Read) -> None:
    big = page(2, "x" * 3_000_000)
    (tmp_path / "a.xml").write_bytes(HEAD + page(1) + big + page(3) + TAIL)
    documents, skipped = read(
        SourceConfig("wikipedia", path=tmp_path, max_document_bytes=1_500_000)
    )
    assert [d.id for d in documents] == ["a.xml:1", "a.xml:3"]
    assert [s.reason for s in skipped] == ["page over 1.5 MB"]
    assert skipped[0].offset == len(HEAD) + len(page(1)) + 2


def test_broken_pages_are_named(tmp_path: Path, read: Read) -> None:
    broken = (
        b"<page><title>x</title></page>" + b"<page><title>\xff</title><ns>0</ns><id>5</id></page>"
    )
    (tmp_path / "a.xml").write_bytes(HEAD + broken + page(3) + TAIL)
    documents, skipped = read(SourceConfig("wikipedia", path=tmp_path))
    assert len(documents) == 1
    assert [s.reason for s in skipped] == ["broken page", "not UTF-8"]
