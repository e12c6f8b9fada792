from __future__ import annotations

import pytest

from isoflop.data.wikitext import plain_text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''italic'' and '''''both'''''.", "Bold and italic and both."),
        ("[[Paris]], [[Rome|the city]], [[Foo (bar)|]] and [[Foo#Bar]].",
         "Paris, the city, Foo and Foo."),
        ("[[File:A.jpg|thumb|A [[cat]] on a [[mat|rug]]]]Text.[[Category:Cats]][[fr:Chat]]",
         "Text."),
        ("[[:Category:Cats|the cats]] [[Wikipedia:Help|help]]", "the cats help"),
        ("A{{cite web|url=x|title={{nested|a|{{b}}}}}}B", "AB"),
        ("{{lang|fr|bonjour}}, {{convert|5|km|mi}}, {{nowrap|10 m}}, {{lang-zh|你好}}",
         "bonjour, 5 km, 10 m, 你好"),
        ("Fact.<ref name=a>{{cite}} [[x]]</ref> More.<ref name=a /><!-- note --> End",
         "Fact. More. End"),
        ("Before\n{| class=x\n|-\n| a || {{b}}\n{|\n| inner\n|}\n|}\nAfter", "Before\n\nAfter"),
        ("[https://x.org the site], [https://x.org], https://x.org/a", "the site, , https://x.org/a"),
        ("* one\n** two\n# three\n: four\n; five", "- one\n- two\n- three\nfour\nfive"),
        ("<nowiki>[[not a link]] {{x}}</nowiki>", "[[not a link]] {{x}}"),
        ("a<br />b <span style='x'>c</span> &amp; d&nbsp;e __NOTOC__", "a\nb c & d\xa0e"),
        ("He ({{lang-x}}) said （{{y}}；） so", "He said so"),
    ],
)  # fmt: skip
def test_markup_becomes_the_words_that_a_reader_sees(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("-{zh-hans:计算机;zh-hant:電腦;}-程序", "计算机程序"),
        ("-{zh-tw:軟體;zh-cn:软件}-", "软件"),
        ("-{zh-hant:電腦}-", "電腦"),
        ("-{T|zh-hans:标题;zh-hant:標題}-正文", "正文"),
        ("-{H|zh-cn:甲;zh-tw:乙}-正文", "正文"),
        ("-{原样}-保留", "原样保留"),
        ("-{A|zh-hans:甲;zh-hant:乙}-", "甲"),
        ("[[计算机|-{zh-hans:计算机;zh-hant:電腦}-]]", "计算机"),
    ],
)
def test_of_chinese_variants_one_is_shown(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_closing_sections_and_empty_ones_go() -> None:
    article = (
        "Lead.\n\n== Life ==\nBorn.\n=== Empty ===\n{{table}}\n=== Work ===\nBooks.\n"
        "== Nothing ==\n== See also ==\n* [[X]]\n=== Sub ===\n* y\n== After ==\nEnd.\n"
        "== 参考文献 ==\n<references/>\n"
    )
    assert plain_text(article) == "Lead.\n\nLife\n\nBorn.\n\nWork\n\nBooks.\n\nAfter\n\nEnd."


HOSTILE = {
    "templates": "{{" * 50_000, "links": "[[" * 50_000, "variants": "-{" * 50_000,
    "tables": "{|\n" * 50_000, "comments": "<!--" * 50_000, "headings": "=" * 50_000,
    "nested templates": "{{a|" * 3_000 + "}}" * 3_000, "references": "<ref>" * 20_000,
    "nowiki": "<nowiki>" * 20_000, "quotes": "'" * 50_000, "addresses": "[http://" * 20_000,
    "spaces": "a" + " " * 50_000 + "b", "heading of spaces": "= " + " " * 50_000 + "=x",
    "number": "&#" + "9" * 50_000 + ";",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markup_neither_eats_what_stands_before_it_nor_grows(name: str) -> None:
    markup = f"Before.\n\n{HOSTILE[name]}"
    text = plain_text(markup)
    assert text.startswith("Before.")
    assert len(text) <= len(markup)
    assert set(text) <= set(markup), "nothing is made up"
