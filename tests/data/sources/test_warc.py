from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.data.recipe import SourceConfig

pytest.importorskip("fastwarc")
pytest.importorskip("resiliparse")
Read = Callable[..., Any]

HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8"


def record(
    url: str, body: bytes, http: bytes | None = HTTP, kind: str = "response",
    content_type: str = "application/http; msgtype=response", length: int | None = None,
) -> bytes:  # fmt: skip
    block = body if http is None else http + b"\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{len(url):032d}>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: "
        f"{len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def page(number: int) -> bytes:
    text = "This is the text of the page, and it is long enough to be its main content. "
    return f"<html><body><main><h1>No {number}</h1><p>{text * 4}</p></main></body></html>".encode()


def good(number: int) -> bytes:
    return record(f"http://x.org/{number}", page(number))


def pack(*records: bytes) -> bytes:
    return b"".join(map(gzip.compress, records))


def crawl(tmp_path: Path, name: str, content: bytes, **more: Any) -> SourceConfig:
    (tmp_path / name).write_bytes(content)
    return SourceConfig("warc", path=tmp_path / name, **more)


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_pages_carry_their_address_and_the_place_of_their_record(
    tmp_path: Path, read: Read, name: str
) -> None:
    records = [record("", b"software: x", None, "warcinfo", "application/warc-fields"), good(1),
               good(2)]  # fmt: skip
    stored = [r if name == "a.warc" else gzip.compress(r) for r in records]
    documents, skipped = read(crawl(tmp_path, name, b"".join(stored), license="CC0-1.0"))
    assert not skipped
    assert [d.url for d in documents] == ["http://x.org/1", "http://x.org/2"]
    places = [len(stored[0]), len(stored[0]) + len(stored[1])]
    assert [d.meta for d in documents] == [
        {"license": "CC0-1.0", "offset": place} for place in places
    ]
    assert [d.id for d in documents] == [f"{name}@{place}" for place in places]
    assert all("No" in d.text and "<" not in d.text for d in documents)


def test_text_files_of_common_crawl_hold_plain_text(tmp_path: Path, read: Read) -> None:
    wet = pack(
        record("", b"x: y", None, "warcinfo", "application/warc-fields"),
        record("http://x.org/w", "港口 text".encode(), None, "conversion", "text/plain"),
    )
    documents, _ = read(crawl(tmp_path, "a.warc.wet.gz", wet))
    assert [(d.text, d.url) for d in documents] == [("港口 text", "http://x.org/w")]


def test_what_is_no_page_is_counted(tmp_path: Path, read: Read) -> None:
    moved, image = HTTP.replace(b"200 OK", b"301 Moved"), HTTP.replace(b"text/html", b"image/png")
    content = (
        record("http://x.org/m", page(1), moved) + record("http://x.org/i", b"\x89PNG", image)
        + record("http://x.org/e", b"<html><body></body></html>") + good(1)
    )  # fmt: skip
    documents, skipped = read(crawl(tmp_path, "a.warc", content))
    assert len(documents) == 1
    assert [s.reason for s in skipped] == [
        "page not found or moved", "neither HTML nor text", "no main text in the page",
    ]  # fmt: skip
    assert not any(s.broken for s in skipped)


@pytest.mark.parametrize(
    ("http", "body"),
    [
        (HTTP + b"\r\nContent-Encoding: gzip", gzip.compress(page(7))),
        (HTTP + b"\r\nTransfer-Encoding: chunked",
         b"%x\r\n" % len(page(7)) + page(7) + b"\r\n0\r\n\r\n"),
        (HTTP.replace(b"; charset=utf-8", b"; charset=gbk"), page(7) + "港口".encode("gbk")),
        (HTTP.replace(b"; charset=utf-8", b""), b'<meta charset="big5">' + page(7)),
    ],
)  # fmt: skip
def test_transfer_and_content_encodings_are_undone(
    tmp_path: Path, read: Read, http: bytes, body: bytes
) -> None:
    documents, skipped = read(crawl(tmp_path, "a.warc", record("http://x.org", body, http)))
    assert not skipped
    assert documents[0].text.startswith("No 7")


DAMAGE = {
    "cut off": good(3)[:300],
    "longer than it says": record("http://x.org/s", page(9), length=200),
    "shorter than it says": record("http://x.org/l", page(9), length=10**9),
    "a length that is no number": record("http://x.org/n", page(9), length=-5),
    "an absurd length": record("http://x.org/h", page(9), length=10**30),
    "garbage": b"garbage\r\n\r\n" * 10,
    "zeros": b"\0" * 100_000,
    "a header without end": b"WARC/1.0\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "broken gzip inside": record("http://x.org/z", page(9), HTTP + b"\r\nContent-Encoding: gzip"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_named_with_its_place_and_reading_goes_on_behind_it(
    tmp_path: Path, read: Read, name: str, packed: bool
) -> None:
    if name in ("garbage", "zeros") and packed:
        content = gzip.compress(good(1)) + DAMAGE[name] + gzip.compress(good(2))
    else:
        parts = (good(1), DAMAGE[name], good(2))
        content = pack(*parts) if packed else b"".join(parts)
    documents, skipped = read(crawl(tmp_path, "a.warc.gz" if packed else "a.warc", content))
    urls = [d.url for d in documents if not d.url.endswith("/s")]
    assert urls == ["http://x.org/1", "http://x.org/2"]
    assert any(s.broken for s in skipped) or name == "a length that is no number"
    assert all(s.where.startswith("a.warc") and s.offset is not None for s in skipped)
    assert all("WARC/1.0" not in d.text for d in documents)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_an_archive_costs_one_record(
    tmp_path: Path, read: Read, at: float
) -> None:
    content = bytearray(pack(*(good(number) for number in range(9))))
    content[int(at * len(content))] ^= 0x55
    documents, skipped = read(crawl(tmp_path, "a.warc.gz", bytes(content)))
    assert len(documents) >= 8
    assert len(documents) == 9 or any(s.broken for s in skipped)


def test_a_page_over_the_cap_is_skipped(tmp_path: Path, read: Read) -> None:
    content = good(1) + record("http://x.org/big", b"<p>" + b"a" * 5000) + good(2)
    documents, skipped = read(crawl(tmp_path, "a.warc", content, max_document_bytes=2000))
    assert len(documents) == 2
    assert [(s.reason, s.broken) for s in skipped] == [("page over 0.002 MB", True)]


@pytest.mark.parametrize("content", [b"this is no crawl\n" * 100, b"\x1f\x8b\x08 no gzip at all"])
def test_a_file_that_is_no_crawl_is_reported(tmp_path: Path, read: Read, content: bytes) -> None:
    documents, skipped = read(crawl(tmp_path, "a.warc.gz", content))
    assert not documents
    assert [s.reason for s in skipped] == ["unreadable file"]
