import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.core.ledger import Promise, Tally
from isoflop.reporting.collect import collect
from isoflop.reporting.page import build
from isoflop.reporting.records import Report, Rung, Sample, Verdict
from isoflop.reporting.results import verdict_sentence
from isoflop.reporting.write import report

VOID = {"meta", "br", "hr", "img", "link", "input"}
CHROMIUM = shutil.which("chromium")
PHONE, DESK = 380, 1280


class Strict(HTMLParser):
    """Reads a page and insists that elements nest, ids are unique and references resolve."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.chinese: list[str] = []
        self._chinese_from: int | None = None
        self.feed(page)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.seen.append((tag, dict(attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
            if "zh" in (dict(attrs).get("class") or "").split() and self._chinese_from is None:
                self._chinese_from = len(self.open)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> is no HTML outside of SVG"
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        if self._chinese_from == len(self.open):
            self._chinese_from = None
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            (self.words if self._chinese_from is None else self.chinese).append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def page(demo: Any) -> str:
    return build(collect([demo.path]))


# --- form ----------------------------------------------------------------------------------


def test_the_page_is_well_formed(page: str) -> None:
    read = Strict(page)
    assert page.startswith("<!doctype html>\n")
    assert read.attributes("html") == [{"lang": "en"}]
    targets = [a["href"] or "" for a in read.attributes("a")]
    assert all(href.startswith("#") and href[1:] in read.ids for href in targets)
    labels = [a["aria-labelledby"] or "" for _, a in read.seen if "aria-labelledby" in a]
    assert labels
    assert all(id_ in read.ids for label in labels for id_ in label.split())


def test_headings_descend_one_level_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Strict(page).seen if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_picture_has_a_title_and_a_role(page: str) -> None:
    read = Strict(page)
    pictures = read.attributes("svg")
    assert len(pictures) >= 2 * 5
    assert all(p.get("role") == "img" for p in pictures)
    assert all(f"{(p['aria-labelledby'] or '').split()[0]}" in read.ids for p in pictures)


def test_the_page_asks_for_nothing_from_outside(page: str) -> None:
    without_names = page.replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert "http:" not in without_names
    assert "https:" not in without_names
    assert not re.search(r"@import|url\(|src=|srcset=|<link|<iframe|<object|<img", page)
    assert [a.get("type") for a in Strict(page).attributes("script")] == ["application/json"]
    assert "default-src 'none'" in page


def test_the_same_report_gives_the_same_bytes(demo: Any, page: str) -> None:
    assert build(collect([demo.path])) == page


# --- content -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            Verdict(1.532, 1.511, 1.553, 0.9, 1.541),
            "Promised 1.532 ± 0.021 nats/token (90 %) before the run; "
            "it ended at 1.541: held, 0.6 % off.",
        ),
        (
            Verdict(1.532, 1.511, 1.553, 0.9, 1.61),
            "Promised 1.532 ± 0.021 nats/token (90 %) before the run; "
            "it ended at 1.610: missed, 4.8 % off.",
        ),
        (
            Verdict(1.532, 1.511, 1.553, 0.8, None),
            "Promised 1.532 ± 0.021 nats/token (80 %) before the run; the run has not ended yet.",
        ),
    ],
)
def test_the_verdict_is_one_sentence(verdict: Verdict, sentence: str) -> None:
    assert verdict_sentence(verdict).replace("\u202f", " ") == sentence


def test_the_page_says_what_was_found(demo: Any, page: str) -> None:
    said = Strict(page).text.replace("\u202f", " ")
    verdict = collect([demo.path]).verdict
    assert verdict is not None
    expected = [
        verdict_sentence(verdict).replace("\u202f", " "),
        "1.31 M parameters",
        "25.6 M tokens",
        "× 9.1",
        "9 min 48 s promised 10 min 11 s",
        "379 MiB promised 393 MiB",
        "Of 4 promises at 90 %, 4 held.",
        "Fitted to 12 runs",
        "from 2,940 logged lines",
        "一共有 19 个",
        "return [line.rstrip() for line in f]",
        "isoflop demo --out demo --seed 7",
        "Example CPU",
        "dropped: duplicate",
        "from python sources",
        "21,480",
    ]
    assert [words for words in expected if words not in said] == []


def test_every_heading_and_caption_can_be_read_in_both_languages(page: str) -> None:
    for tag in ("h2", "caption"):
        inner = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL)
        assert inner
        assert all('class="en"' in each and 'class="zh"' in each for each in inner), inner
    read = Strict(page)
    assert "训练前承诺" in "".join(read.chinese)
    marked = [a for _, a in read.seen if a.get("class") == "zh"]
    assert all(a.get("lang") == "zh-Hans" for a in marked)


def test_the_language_is_chosen_by_two_buttons_that_a_keyboard_reaches(page: str) -> None:
    buttons = [a for a in Strict(page).attributes("input") if a.get("class") == "switch"]
    assert [(b["type"], b["aria-label"]) for b in buttons] == [
        ("radio", "English"),
        ("radio", "中文"),
    ]
    assert len({b["name"] for b in buttons}) == 1
    assert "checked" in buttons[0]


def test_every_table_has_headers_with_a_scope_and_a_caption(page: str) -> None:
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        assert "<caption>" in table
        assert all("scope=" in head for head in re.findall(r"<th\b[^>]*>", table))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of a colour `#rgb` or `#rrggbb`."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", ["light", "dark", "print"])
def test_words_stand_out_from_what_is_behind_them(page: str, mode: str) -> None:
    roots = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    value = dict(re.findall(r"--(\w+): (#\w+)", roots[("light", "dark", "print").index(mode)]))
    for words in ("ink", "soft", "accent", "held", "link"):
        for behind in ("paper", "wash"):
            light, dark = sorted((luminance(value[words]), luminance(value[behind])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (mode, words, behind)


def test_chinese_samples_are_marked_as_chinese_and_code_as_no_language(page: str) -> None:
    marks = [(a.get("lang"), a.get("class")) for a in Strict(page).attributes("pre")]
    assert marks[:3] == [("en", None), ("zh", None), (None, "code")]


def embedded(page: str) -> Any:
    (raw,) = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    return json.loads(raw)


def test_the_data_are_embedded_as_json(demo: Any, page: str) -> None:
    data = embedded(page)
    assert data["format"] == "isoflop-report/1"
    assert data["verdict"]["value"] == pytest.approx(demo.summary["promise"]["value"], rel=1e-6)
    assert len(data["rungs"]["loss"]) == 12
    assert set(data["curves"][0]["training"]) == {"tokens", "mean", "low", "high"}
    assert data["ledger_head"] == collect([demo.path]).ledger_head


def test_an_empty_report_is_a_page_without_sections() -> None:
    read = Strict(build(Report(title="Nothing", created="")))
    assert read.attributes("section") == []
    assert "Nothing" in read.text


def test_a_missed_promise_says_so(make_demo: Callable[..., Any]) -> None:
    page = build(collect([make_demo(logged=20, target_logged=20, outcome=9.0).path]))
    assert "missed" in Strict(page).text
    assert "Of 4 promises at 90 %, 2 held." in Strict(page).text.replace("\u202f", " ")


# --- size, safety ------ -------------------------------------------------------------------


def test_a_hundred_thousand_metric_lines_make_a_small_page(
    make_demo: Callable[..., Any], tmp_path: Path
) -> None:
    demo = make_demo(logged=2_500, target_logged=70_000)
    written = report([demo.path], tmp_path / "report.html")
    assert sum(c.lines_read for c in written.report.curves) == 100_000
    assert written.bytes < 500_000


def test_a_thousand_rungs_and_many_promises_stay_under_500_kb() -> None:
    rungs = tuple(
        Rung(f"run-{i:04d}", 1e5 * (1 + i % 20), 1e6 * (1 + i), 3.0, 6e11 * (1 + i), 3.01)
        for i in range(1000)
    )
    promises = tuple(
        Promise(f"p{i}", "loss", "nats/token", 2.0, 1.9, 2.1, 0.9, "2026-01-01T00:00:00Z", "law")
        for i in range(100)
    )
    samples = tuple(Sample(1, 1.0, "p" * 200, "x" * 2000) for _ in range(12))
    found = Report(
        "Many",
        "",
        rungs=rungs,
        promises=promises,
        samples=samples,
        tallies=(Tally(0.9, 100, 0, 0),),
    )
    page = build(found)
    assert len(page.encode()) < 500_000
    assert "The 200 largest runs" in Strict(page).text


EVIL = "</script></pre><img src=x onerror=alert(1)><!-- ' \" & \x00 \u2028 ]]>"


def test_text_from_files_stays_text(make_demo: Callable[..., Any]) -> None:
    demo = make_demo()
    row = {"step": 99, "tokens": 1, "prompt": EVIL, "text": EVIL}
    (demo.path / "target" / "samples.jsonl").write_text(json.dumps(row) + "\n")
    summary = json.loads((demo.path / "summary.json").read_text())
    summary |= {"command": EVIL, "machine": {EVIL: EVIL}}
    summary["stages"][0]["name"] = EVIL
    (demo.path / "summary.json").write_text(json.dumps(summary))
    page = build(collect([demo.path]))
    read = Strict(page)
    assert read.attributes("img") == []
    assert len(read.attributes("script")) == 1
    assert read.text.count("<img src=x onerror=alert(1)>") >= 5
    assert embedded(page)["samples"][0]["text"] == EVIL
    assert "\x00" not in page
    assert "\u2028" not in page.split('id="report-data">')[1]


def test_a_lone_surrogate_in_a_sample_can_be_written() -> None:
    page = build(Report("S", "", samples=(Sample(1, 1.0, "a\ud800", "b\udfff"),)))
    words = "".join(Strict(page.encode("utf-8").decode("utf-8")).words)
    assert "a\ufffd" in words
    assert "b\ufffd" in words
    assert json.loads(page.split('id="report-data">')[1].split("</script>")[0])["samples"] == [
        {"step": 1, "tokens": 1.0, "prompt": "a?", "text": "b?", "surprisal": []}
    ]


# --- command -------------------------------------------------------------------------------


def test_the_command_writes_a_page_and_prints_one_document(
    demo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(demo.path), "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(out)
    assert document["bytes"] == out.stat().st_size
    assert document["promise"]["held"] is True
    assert document["verdict"].startswith("Promised ")


def test_the_command_refuses_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "absent"), "-o", str(out)]) == 2
    assert "no such file or directory" in capsys.readouterr().err
    assert main(["report", "-o", str(out)]) == 2
    assert not out.exists()


# --- a real browser ------------------------------------------------------------------------


def browse(tmp_path: Path, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        CHROMIUM or "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--proxy-server=127.0.0.1:9", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_without_a_network_shows_the_page_and_has_no_complaint(
    demo: Any, page: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, "utf-8")
    shown = browse(tmp_path, path, "--dump-dom")
    assert "CONSOLE" not in shown.stderr
    assert Strict(shown.stdout.strip()).text == Strict(page).text


_MEASURE = """<!doctype html><body><script>
addEventListener('load', () => {
  const inner = document.querySelector('iframe').contentWindow;
  const inside = inner.document;
  const words = [...inside.querySelectorAll('svg text')]
    .map(t => t.getBoundingClientRect()).filter(b => b.width > 0);
  document.body.dataset.measured = JSON.stringify({
    width: inner.innerWidth,
    words: words.length,
    too_wide: inside.documentElement.scrollWidth - inner.innerWidth,
    outside: words.filter(b => b.left < -1 || b.right > inner.innerWidth + 1).length,
    illegible: words.filter(b => b.height < 11).length,
  });
});
</script><iframe style="border:0;width:WIDTHpx;height:900px" srcdoc="PAGE"></iframe></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [PHONE, 700, DESK])
def test_nothing_sticks_out_and_chart_words_are_legible(
    page: str, tmp_path: Path, width: int
) -> None:
    # A window has a least width, a frame has none; a frame's page takes it for its screen.
    outer = _MEASURE.replace("WIDTH", str(width)).replace("PAGE", escape(page))
    path = tmp_path / "outer.html"
    path.write_text(outer, "utf-8")
    shown = browse(tmp_path, path, "--dump-dom", "--hide-scrollbars", "--window-size=1400,1000")
    (raw,) = re.findall(r'data-measured="([^"]*)"', shown.stdout)
    measured = json.loads(unescape(raw))
    assert measured.pop("words") > 50
    assert measured == {"width": width, "too_wide": 0, "outside": 0, "illegible": 0}


_SWITCH = """<!doctype html><body><script>
addEventListener('load', () => {
  const inside = document.querySelector('iframe').contentWindow.document;
  const seen = (kind) => [...inside.querySelectorAll(`.${kind}`)]
    .filter(e => e.getClientRects().length > 0).length;
  const before = { en: seen('en'), zh: seen('zh') };
  inside.querySelector('label[for=in-zh]').click();
  const after = { en: seen('en'), zh: seen('zh') };
  inside.getElementById('in-zh').focus();
  const label = getComputedStyle(inside.querySelector('label[for=in-zh]'));
  document.body.dataset.measured = JSON.stringify({ before, after, outline: label.outlineStyle });
});
</script><iframe style="border:0;width:1280px;height:900px" srcdoc="PAGE"></iframe></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_switch_shows_one_language_at_a_time_without_a_script(
    page: str, tmp_path: Path
) -> None:
    path = tmp_path / "outer.html"
    path.write_text(_SWITCH.replace("PAGE", escape(page)), "utf-8")
    shown = browse(tmp_path, path, "--dump-dom", "--window-size=1400,1000")
    (raw,) = re.findall(r'data-measured="([^"]*)"', shown.stdout)
    measured = json.loads(unescape(raw))
    assert measured["before"]["en"] > 50
    assert measured["before"]["zh"] == 0
    assert measured["after"]["en"] == 0
    assert measured["after"]["zh"] == measured["before"]["en"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_prints(page: str, tmp_path: Path) -> None:
    path, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(page, "utf-8")
    browse(tmp_path, path, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", content)) <= 20
