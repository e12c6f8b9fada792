from __future__ import annotations

import pytest

from isoflop.data.html_text import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    BrokenPage,
    Extractor,
    decode_page,
    licence_of_page,
)

pytest.importorskip("resiliparse")
pytest.importorskip("trafilatura")

SENTENCE = "This is a sentence of the article, and it is long enough to count as main text. "
PAGE = f"""<!DOCTYPE html><html><head><title>T</title><script>var x = "<div>".repeat(9);</script>
<style>p {{ color: red }}</style></head><body><nav><a href="/">Home</a> <a href="/b">Blog</a></nav>
<article><h1>Harbour &amp; sea</h1><p>{SENTENCE * 4}</p><p>Second: 港口 caf&eacute;. {SENTENCE}</p>
</article><footer>Imprint, cookies and privacy</footer></body></html>"""


@pytest.mark.parametrize("mode", ["fast", "careful"])
def test_the_article_stays_and_the_furniture_goes(mode: str) -> None:
    text = Extractor(mode)(PAGE)  # type: ignore[arg-type]
    assert SENTENCE.strip() in text
    assert "港口 café" in text
    assert "Second" in text.split("\n")[-1]
    for furniture in ("Imprint", "Blog", "repeat", "color", "<"):
        assert furniture not in text


@pytest.mark.parametrize(
    ("declared", "codec"), [("gb2312", "gb18030"), ("windows-1251", "cp1251"), ("big5", "big5")]
)
def test_the_page_or_the_header_says_how_it_is_encoded(declared: str, codec: str) -> None:
    word = {"gb18030": "港口", "cp1251": "порт", "big5": "港口"}[codec]
    raw = f'<html><head><meta charset="{declared}"></head><p>{word}'.encode(codec)
    assert word in decode_page(raw).text  # type: ignore[union-attr]
    bare = f"<p>{word}".encode(codec)
    assert word in decode_page(bare, declared).text  # type: ignore[union-attr]
    old = f'<meta http-equiv="Content-Type" content="text/html; charset={declared}"><p>{word}'
    assert word in decode_page(old.encode(codec)).text  # type: ignore[union-attr]


def test_a_wrong_declaration_does_not_spoil_utf8() -> None:
    raw = '<meta charset="iso-8859-1"><p>港口 café'.encode()
    assert "港口 café" in decode_page(raw).text  # type: ignore[union-attr]


BOMBS = {
    "nesting": "<div>" * 100_000 + "x",
    "closed nesting": "<p>y</p>" * 99 + "<span>" * 5_000 + "x" + "</span>" * 5_000,
    "half links": "<a <a rel=license" * 20_000,
    "attributes": "<p " + " ".join(f"a{n}=1" for n in range(100_000)) + ">x",
}
HEAVY = {
    "a huge attribute": (f"<p title='{'a ' * 2_000_000}'>x</p>", "x"),
    "entities": ("<p>" + "&amp;" * 500_000, "&" * 500_000),
    "brackets": ("<" * 500_000, "<" * 500_000),
    "half comments": ("<p>x" + "<!--" * 300_000, "x"),
    "scripts that hold markup": (f"<script>{'<div>' * 5_000}</script><p>x", "x"),
    "comments that hold markup": (f"<!-- {'<div>' * 5_000} --><p>x", "x"),
    "unclosed paragraphs": ("<p>x<br>" * 20_000, "\n\n".join(["x"] * 20_000)),
    "half scripts": ("<p>x" + "<script>" * 50_000, "x"),
}


@pytest.mark.parametrize("mode", ["fast", "careful"])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str, mode: str) -> None:
    with pytest.raises(BrokenPage, match=r"nested|attributes|elements"):
        Extractor(mode)(BOMBS[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HEAVY)
def test_what_is_merely_heavy_is_read(name: str) -> None:
    page, text = HEAVY[name]
    assert Extractor("fast")(page) == text
    link = '<a rel=license href="https://creativecommons.org/licenses/by/4.0/">'
    assert licence_of_page(page) is None
    assert licence_of_page(link + page) == "CC-BY-4.0"


def test_the_limits_themselves_are_allowed() -> None:
    assert "x" in Extractor("fast")("<div>" * MAX_DEPTH + "x")
    assert "x" in Extractor("fast")("<p " + "a=1 " * (MAX_ATTRIBUTES - 2) + ">x")


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (
            '<a rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/">',
            "CC-BY-SA-4.0",
        ),
        ("<link href=//creativecommons.org/publicdomain/zero/1.0/ rel=license>", "CC0-1.0"),
        ('<a href="https://www.gnu.org/licenses/fdl-1.3.html" rel="nofollow license">', "GFDL-1.3"),
        ('<a href="https://creativecommons.org/licenses/by/4.0/">', None),
        ('<a rel="license" href="/terms">', None),
    ],
)
def test_a_page_names_its_licence_by_a_link(tag: str, name: str | None) -> None:
    assert licence_of_page(f"<html>{tag}x</a>") == name
