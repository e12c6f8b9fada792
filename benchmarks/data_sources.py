"""Speed of reading crawls and pages, side by side with the libraries that one would use instead.

    python benchmarks/data_sources.py [--pages 400] [--warcio]

Makes a crawl of pages of some 60 kB (as much furniture as text, in English and Chinese), then
reads it with fastwarc and, if asked, with warcio (`pip install warcio`), extracts the main text
with resiliparse and with trafilatura, and reads it as Isoflop does, in CPU seconds of one process.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from isoflop.data.documents import Document
from isoflop.data.encodings import decode
from isoflop.data.html_text import Extractor
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import read_source

_SENTENCE = (
    "the harbour of a town where ships wait for coal and wind while clerks write down what each "
    "captain owes for rope tar bread and water before the tide turns and all of them set sail"
)
_IDEOGRAPHS = (
    "清晨的街道上还没有什么人只有卖豆浆的老王推着小车慢慢走过他每天五点起床先磨豆子再烧开水"
)


def page(number: int) -> bytes:
    """One page: menus, a script, an article, a list of links, a footer."""
    draw = random.Random(number)

    def paragraph() -> str:
        if number % 2:
            return "".join(draw.choices(_IDEOGRAPHS, k=200)) + "。"
        return " ".join(draw.choices(_SENTENCE.split(), k=120)).capitalize() + "."

    link = '<li class="item"><a href="/{0}/{1}" title="Go to {1}">Section {1}</a></li>'
    menu = "\n".join(link.format(number, n) for n in range(150))
    script = "var a = [" + ",".join(str(draw.random()) for _ in range(300)) + "];"
    body = "\n".join(f"<p>{paragraph()}</p>" for _ in range(25))
    return (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{number}</title>"
        f"<style>{'p { margin: 0 } ' * 200}</style><script>{script}</script></head><body>"
        f"<nav><ul>{menu}</ul></nav><main><article><h1>No {number}</h1>{body}</article></main>"
        f"<aside><ul>{menu}</ul></aside><footer>Imprint</footer></body></html>"
    ).encode()


def records(number: int, body: bytes) -> list[bytes]:
    """The three records of a page, as Common Crawl writes them: request, response, metadata."""
    http = b"\r\n".join(
        [b"HTTP/1.1 200 OK", b"Content-Type: text/html; charset=utf-8", b"Server: nginx"]
        + [b"X-Header-%d: value of the header" % n for n in range(12)]
    )
    asked = b"GET / HTTP/1.1\r\nUser-Agent: bot\r\nHost: example.org\r\n\r\n"
    noted = b"fetchTimeMs: 300\r\ncharset-detected: UTF-8\r\n"
    return [
        record(number, "request", asked),
        record(number, "response", http + b"\r\n\r\n" + body),
        record(number, "metadata", noted),
    ]


def record(number: int, kind: str, block: bytes) -> bytes:
    content_type = {"metadata": "application/warc-fields"}.get(
        kind, f"application/http; msgtype={kind}"
    )
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://example.org/{number}\r\n"
        f"WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:032d}>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of this process, the least of several."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def show(name: str, cpu_seconds: float, n_bytes: int, baseline: float | None = None) -> None:
    speed = n_bytes / 1e6 / cpu_seconds
    ratio = f"   {cpu_seconds / baseline:5.1f} x" if baseline else ""
    print(f"{name:<46} {cpu_seconds:8.3f} s {speed:9.1f} MB/s{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--warcio", action="store_true")
    arguments = parser.parse_args()
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    pages = [page(number) for number in range(arguments.pages)]
    size = sum(map(len, pages))
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB of HTML; MB of HTML per CPU-second")
    stored = [part for n, body in enumerate(pages) for part in records(n, body)]
    plain, packed = b"".join(stored), b"".join(gzip.compress(part, 6) for part in stored)
    for name, content in (("plain", plain), ("gzip", packed)):

        def fast(content: bytes = content) -> int:
            records = ArchiveIterator(io.BytesIO(content), record_types=WarcRecordType.response)
            return sum(len(r.reader.read()) for r in records)

        assert fast() == size
        base = seconds(fast)
        show(f"WARC, {name}: fastwarc", base, size)
        if arguments.warcio:
            from warcio.archiveiterator import ArchiveIterator as Peer  # type: ignore[import-not-found]

            def peer(content: bytes = content) -> int:
                found = Peer(io.BytesIO(content))
                pages = (r for r in found if r.rec_type == "response")
                return sum(len(r.content_stream().read()) for r in pages)

            assert peer() == size
            show(f"WARC, {name}: warcio", seconds(peer), size, base)
    texts = [body.decode() for body in pages]
    fast_mode, careful_mode = Extractor("fast"), Extractor("careful")
    base = seconds(lambda: [fast_mode(text) for text in texts])
    show("main text: resiliparse (fast)", base, size)
    few = texts[: max(1, len(texts) // 8)]
    part = seconds(lambda: [careful_mode(text) for text in few], 2) * len(texts) / len(few)
    show("main text: trafilatura (careful)", part, size, base)
    chinese = "".join(_IDEOGRAPHS for _ in range(20_000))
    for codec in ("utf-8", "gb18030"):
        raw = chinese.encode(codec)
        show(f"encoding: {codec}", seconds(lambda raw=raw: decode(raw)), len(raw))  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "crawl.warc.gz")
        path.write_bytes(packed)
        source = SourceConfig("warc", path=path)
        found = [item for item in read_source(source, 0) if isinstance(item, Document)]
        assert len(found) == len(pages)
        show("isoflop, kind = warc, all of it", seconds(lambda: list(read_source(source, 0))), size)


if __name__ == "__main__":
    main()
