"""`isoflop report --live`: the same page while a run goes on, on this machine alone.

The page is made anew when a file it was made from has changed, and the browser puts what is new in
its place: scroll, language, opened details and the keyboard's focus stay where they were. Without a
script the page reloads by itself. Not for serving to others: it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

from isoflop.core.errors import IsoflopError
from isoflop.reporting.collect import collect
from isoflop.reporting.page import POLICY, build
from isoflop.reporting.svg import text

HOST = "127.0.0.1"
REFRESH_SECONDS = 5
_NAMES = ("*.json", "*.jsonl", "*.csv", "*/*.json", "*/*.jsonl", "runs/*/*.jsonl")


@dataclass(frozen=True)
class Page:
    """The page as it stands, and a mark that changes with it."""

    content: bytes
    mark: str


class Pages:
    """Makes the page again only when a file behind it has changed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._lock = threading.Lock()
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._page = Page(b"", "")

    def now(self) -> Page:
        """The page of what lies on disk now.

        Raises:
            IsoflopError: What lies there cannot be read.
        """
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                content = live_page(self._paths).encode()
                self._page = Page(content, hashlib.sha256(content).hexdigest()[:32])
                self._seen = seen
            return self._page

    def _look(self) -> tuple[tuple[str, int, int], ...]:
        files = set()
        for path in self._paths:
            files |= {path} if path.is_file() else {f for name in _NAMES for f in path.glob(name)}
        found = []
        for file in sorted(files):
            try:
                stat = file.stat()
            except FileNotFoundError:  # renamed away between the two
                continue
            found.append((str(file), stat.st_mtime_ns, stat.st_size))
        return tuple(found)


def live_page(paths: Sequence[Path]) -> str:
    """The report with what keeps it up to date.

    Raises:
        IsoflopError: What lies at `paths` cannot be read.
    """
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'; connect-src 'self'"
    head = (
        f"<script>{script}</script>"
        f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"></noscript>'
    )
    return build(collect(list(paths)), head=head, policy=policy)


def _script() -> str:
    assets = resources.files("isoflop.reporting").joinpath("assets")
    return assets.joinpath("live.js").read_text(encoding="utf-8")


def serve_live(
    paths: Sequence[Path | str],
    port: int = 0,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve the report at `http://127.0.0.1:PORT/` until interrupted.

    Args:
        port: 0 takes any free one.
        ready: Told the address once it can be opened.
        stop: Ends it when set.

    Raises:
        IsoflopError: There is nothing to report on.
    """
    pages = Pages([Path(path) for path in paths])
    pages.now()  # what cannot be read is told before the address is
    with ThreadingHTTPServer((HOST, port), _handler(pages)) as server:
        server.daemon_threads = True
        if ready is not None:
            ready(f"http://{HOST}:{server.server_port}/")
        if stop is None:
            server.serve_forever()
            return
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        stop.wait()
        server.shutdown()
        thread.join()


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers with the page, or that it has not changed."""

        def do_GET(self) -> None:
            """The page."""
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in (HOST, "localhost"):  # a name of another's that leads here
                self._say(HTTPStatus.FORBIDDEN, b"only for this machine")
            elif self.path != "/":
                self._say(HTTPStatus.NOT_FOUND, b"only / is here")
            else:
                self._page()

        def _page(self) -> None:
            try:
                page = pages.now()
            except IsoflopError as error:  # a file in the middle of being replaced
                self._say(HTTPStatus.SERVICE_UNAVAILABLE, text(error.paragraph()).encode())
                return
            if self.headers.get("If-None-Match") == page.mark:
                self._say(HTTPStatus.NOT_MODIFIED, b"", page.mark)
            else:
                self._say(HTTPStatus.OK, page.content, page.mark)

        def _say(self, status: HTTPStatus, content: bytes, mark: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Cache-Control", "no-store")
            if mark:
                self.send_header("ETag", mark)
            if status != HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if status != HTTPStatus.NOT_MODIFIED:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line for every refresh would fill the terminal."""

    return Handler
