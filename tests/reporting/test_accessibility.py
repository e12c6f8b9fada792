"""The report and the chat page under axe-core in a real browser: no violation of WCAG 2.2 A or AA.

axe-core comes from npm, in the version that is pinned here; without npm, a browser or the package
the test is skipped. In the dark too.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from isoflop.reporting.collect import collect
from isoflop.reporting.page import build

CHROMIUM = shutil.which("chromium")
AXE = "axe-core@4.14.1"
CHAT = Path(__file__).resolve().parents[2] / "src" / "isoflop" / "serving" / "web" / "chat.html"
DARK = ("--blink-settings=preferredColorScheme=0",)
RUN = """
addEventListener("load", () => axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a",
  "wcag21aa", "wcag22aa"]}).then(found => {
    const said = {passes: found.passes.length, violations: found.violations.map(v =>
      [v.id, v.help, v.nodes.map(n => n.html.slice(0, 200))])};
    document.body.dataset.axe = JSON.stringify(said);
}))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of axe.min.js."""
    npm = shutil.which("npm")
    folder = tmp_path_factory.mktemp("axe")
    packed = npm and subprocess.run(
        [npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, check=False
    )
    if not packed or packed.returncode:
        pytest.skip("npm cannot fetch axe-core here")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        file = tar.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def checked(page: str, axe: str, folder: Path, *flags: str) -> dict[str, Any]:
    """What axe-core says of a page: `violations`, and how many rules passed."""
    page = re.sub(r'<meta[^>]*"Content-Security-Policy"[^>]*>', "", page)  # it forbids any script
    script = axe.replace("</script", r"<\/script") + RUN
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    shown = subprocess.run(
        [
            CHROMIUM or "chromium", "--headless", "--no-sandbox", "--disable-gpu", *flags,
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000",
            "--window-size=1300,1000", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (raw,) = re.findall(r'data-axe="([^"]*)"', shown.stdout)
    said: dict[str, Any] = json.loads(unescape(raw))
    return said


@pytest.mark.parametrize("flags", [(), DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["report", "chat"])
def test_no_rule_of_wcag_is_broken(
    name: str, flags: tuple[str, ...], axe: str, demo: Any, tmp_path: Path
) -> None:
    page = build(collect([demo.path])) if name == "report" else CHAT.read_text(encoding="utf-8")
    said = checked(page, axe, tmp_path, *flags)
    assert said["violations"] == []
    assert said["passes"] >= 10, "it looked at the page"


def test_a_picture_without_words_and_grey_on_grey_would_be_found(axe: str, tmp_path: Path) -> None:
    bad = '<p style="color:#999;background:#aaa">grey</p><img src="data:,">'
    page = f'<!doctype html><html lang="en"><title>t</title><body>{bad}</body></html>'
    found = {violation[0] for violation in checked(page, axe, tmp_path)["violations"]}
    assert {"image-alt", "color-contrast"} <= found
