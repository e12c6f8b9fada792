"""The live report: made anew when a file changes, for this machine alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isoflop.core.errors import ArtifactError
from isoflop.reporting.live import Pages, live_page, serve_live

CHROMIUM = shutil.which("chromium")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in flight."""
    directory = tmp_path / "run"
    directory.mkdir()
    grow(directory, 1, 30)
    return directory


def grow(run: Path, first: int, last: int) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        for i in range(first, last):
            file.write(json.dumps({"step": i, "tokens": 512 * i, "loss": 5 / i + 2}) + "\n")


@contextmanager
def served(run: Path) -> Iterator[str]:
    stop, known, addresses = threading.Event(), threading.Event(), []

    def ready(address: str) -> None:
        addresses.append(address)
        known.set()

    thread = threading.Thread(target=serve_live, args=([run], 0, ready, stop))
    thread.start()
    try:
        assert known.wait(30)
        yield addresses[0]
    finally:
        stop.set()
        thread.join(30)


def get(address: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(
        address, headers={key.replace("_", "-"): value for key, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.headers.get("ETag", ""), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("ETag", ""), error.read().decode()


def test_the_page_changes_only_when_the_run_does(run: Path) -> None:
    pages = Pages([run])
    before = pages.now()
    assert pages.now() is before
    grow(run, 30, 60)
    after = pages.now()
    assert after.mark != before.mark
    assert "59 logged lines" in after.content.decode()


def test_it_is_served_to_this_machine_and_says_when_nothing_changed(run: Path) -> None:
    with served(run) as address:
        assert address.startswith("http://127.0.0.1:")
        status, mark, page = get(address)
        assert (status, "29 logged lines" in page) == (200, True)
        assert get(address, If_None_Match=mark)[0] == 304
        grow(run, 30, 40)
        assert get(address, If_None_Match=mark)[0] == 200
        assert get(f"{address}other")[0] == 404
        assert get(address, Host="evil.example:80")[0] == 403


def test_its_policy_lets_one_script_run_and_only_its_own_page_be_fetched(run: Path) -> None:
    page = live_page([run])
    assert page.count("<script>") == 1
    policy = page.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "connect-src 'self'" in policy


def test_what_cannot_be_read_is_told_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to report on"):
        serve_live([tmp_path])


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_puts_what_is_new_in_its_place(run: Path, tmp_path: Path) -> None:
    with served(run) as address:
        timer = threading.Timer(2.0, grow, (run, 30, 90))
        timer.start()
        command = [
            CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            "--timeout=12000", "--virtual-time-budget=12000", "--dump-dom", address,
        ]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        timer.join()
    assert "CONSOLE" not in shown.stderr
    assert "logged lines" in shown.stdout
