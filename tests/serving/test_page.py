"""The chat page in a real browser, driven through its own elements by a script put beside it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from isoflop.serving.api import PAGE

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

DRIVE = """
<script>
const until = async check => {
  for (let i = 0; i < 2000; i++) {
    const got = check();
    if (got) return got;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  throw new Error("never: " + check);
};
const press = (node, key, more = {}) =>
  node.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const type = async text => {
  $("text").value = text;
  press($("text"), "Enter");
  await until(() => $("send").hidden);
  await until(() => !$("send").hidden);
};
const last = query => [...document.querySelectorAll(query)].pop();
(async () => {
  const result = {};
  try {
    await until(() => $("model").textContent);
    STEPS
  } catch (error) { result.error = String(error); }
  await fetch("RESULT", { method: "POST", mode: "no-cors", body: JSON.stringify(result) });
})();
</script></body>
"""

TALK = """
    result.model = $("model").textContent;
    $("max_tokens").value = 12; $("seed").value = 3; $("system").value = "Be brief.";
    await type("hello 你好 <b>&");
    result.user = last(".user .said").textContent;
    result.answer = last(".model .said").textContent;
    last(".model summary").click();
    result.prompt = (await until(() => last(".model pre"))).textContent;
    const thumb = document.querySelector(".model .acts button");
    thumb.click();
    await until(() => last(".thanks"));
    result.pressed = thumb.getAttribute("aria-pressed");
    press(document.body, "ArrowUp", { altKey: true });
    const area = await until(() => last("article textarea"));
    area.value = "corrected 改";
    press(area, "Enter", { ctrlKey: true });
    await until(() => !last("article textarea"));
    result.corrected = last(".model .said").textContent;
    $("shade").checked = true;
    await type("again");
    result.spans = document.querySelectorAll(".shaded span").length;
    result.title = last(".shaded span").title;
    $("shade").checked = false; $("two").checked = true;
    await type("two");
    result.two = [...document.querySelectorAll(".pair .said")].map(node => node.textContent);
    [...document.querySelectorAll(".pair .acts button")][1].click();
    await until(() => last(".pair .thanks"));
    $("language").click();
    result.chinese = [document.documentElement.lang, $("send").textContent, $("text").placeholder];
    $("max_tokens").value = 9999;
    await type("too long");
    result.refused = last(".error").textContent;
    press(document.body, "n", { altKey: true });
    result.fresh = $("log").children.length;
    result.focus = document.activeElement.id;
"""

STOP = """
    $("max_tokens").value = 200; $("temperature").value = 0;
    $("text").value = "long";
    press($("text"), "Enter");
    await until(() => last(".model .said")?.textContent);
    press(document.body, "Escape");
    await until(() => !$("send").hidden);
    result.note = last(".model .note").textContent;
"""


class Receiver(BaseHTTPRequestHandler):
    """Takes the one result that a page sends."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.result = json.loads(body)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


def driven(
    served: Any, steps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the steps found out on the page."""
    command = [
        CHROMIUM or "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--enable-logging=stderr", "--lang=en-US", "--remote-debugging-port=0",
        f"--user-data-dir={tmp_path / 'profile'}", served.address + "/",
    ]  # fmt: skip
    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        receiver.timeout = 90
        address = f"http://127.0.0.1:{receiver.server_port}/"
        script = DRIVE.replace("STEPS", steps).replace("RESULT", address)
        path = tmp_path / "page.html"
        path.write_text(PAGE.read_text("utf-8").replace("</body>", script), "utf-8")
        monkeypatch.setattr("isoflop.serving.api.PAGE", path)
        log = tmp_path / "browser.log"
        with open(log, "wb") as said, subprocess.Popen(command, stderr=said) as browser:
            try:
                receiver.handle_request()
            finally:
                browser.kill()
    complaints = [line for line in log.read_text("utf-8").splitlines() if "CONSOLE" in line]
    result: dict[str, Any] = getattr(receiver, "result", {"error": "no result"})
    assert "error" not in result, (result["error"], complaints)
    assert not [line for line in complaints if "Uncaught" in line]
    return result


@needs_browser
def test_a_person_can_talk_judge_and_correct(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(served.service.feedback))
    got = driven(served, TALK, tmp_path, monkeypatch)
    said = served.client().chat.completions.create(
        model="tiny", max_tokens=12, seed=3, temperature=0.8, top_p=1,
        messages=[{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": "hello 你好 <b>&"}],
    )  # fmt: skip
    assert got["user"] == "hello 你好 <b>&"
    assert got["answer"] == said.choices[0].message.content
    assert got["prompt"].startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert got["model"] == "tiny · context 256"
    assert got["pressed"] == "true"
    assert got["corrected"] == "corrected 改"
    assert got["spans"] > 0
    assert got["title"].count("%") == 6
    assert len(set(got["two"])) == 2
    assert got["chinese"] == ["zh-Hans", "发送", "说点什么"]
    assert "context is 256" in got["refused"]
    assert (got["fresh"], got["focus"]) == (0, "text")
    rated, edited, chosen = list(served.service.feedback)[before:]
    assert (rated["rating"], rated["answer"], rated["seed"]) == (1, got["answer"], 3)
    assert (edited["edited"], edited["answer"]) == ("corrected 改", got["answer"])
    assert (chosen["answer"], chosen["rejected"]) == (got["two"][1], got["two"][0])
    assert chosen["messages"][2] == {"role": "assistant", "content": "corrected 改"}


@needs_browser
def test_escape_stops_an_answer_on_the_server_too(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = driven(served, STOP, tmp_path, monkeypatch)
    assert got["note"] in ("stopped", "cut off at the limit")
    assert served.idle()


def test_the_page_asks_for_nothing_from_elsewhere_and_speaks_both_languages() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "http:" not in page
    assert "https:" not in page
    english, chinese = re.findall(r"^  (?:en|zh): \{(.*?)\},$", page, re.MULTILINE | re.DOTALL)
    keys = [re.findall(r"(\w+): \"", words) for words in (english, chinese)]
    assert keys[0] == keys[1]
    used = set(re.findall(r"data-say=\"(\w+)\"", page)) | set(re.findall(r"words\.(\w+)", page))
    assert used <= set(keys[0])
