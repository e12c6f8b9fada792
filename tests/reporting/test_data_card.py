"""The data card of corpora that `build` made, with the files of other stages planted beside."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from isoflop.core.artifact import write_json
from isoflop.core.errors import ArtifactError
from isoflop.data import tokenizer as tokenizer_module
from isoflop.data.clean_recipe import CleanConfig, LanguageConfig, PIIConfig
from isoflop.data.corpus import Corpus, build
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.reporting.data_card import MOST_BYTES, data_card
from isoflop.reporting.data_card import build as build_page
from isoflop.reporting.data_card_documents import host_of
from isoflop.reporting.data_card_markup import stranger
from isoflop.reporting.data_card_read import read_card

VOID = {"meta", "br", "input"}
EVIL = '</pre><script>alert(1)</script><img src=x onerror="alert(1)">\u202egnp.exe\u202c\x00\x1b[2J'
DUPLICATES = {
    "documents": 90,
    "clusters": 4,
    "removed": 21,
    "by_kind": {"exact": 9, "near": 12},
    "largest": [{"size": 7, "kept": "k1", "ids": ["k1", "k2", "k3"]}],
}
CONTAMINATION = {
    "tasks": {"gsm8k": {"items": 1319, "contaminated": 37, "documents": 12}},
    "dropped": 12,
}


class Page(HTMLParser):
    """Reads a page and insists that elements nest and ids are unique."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("card")
    rows: list[dict[str, Any]] = []
    for number in range(60):
        host = ("www.a.example", "b.example:8080", "c.example")[min(number % 4, 2)]
        rows.append(
            {
                "id": f"doc{number}",
                "text": f"Document {number}. "
                + "A line of words that says little. " * (number + 1),
                "url": f"https://{host}/{number}",
                "language": "en" if number % 3 else "zh-Hans",
                "license": "MIT" if number % 2 else None,
            }
        )
    rows += [{"id": f"copy{n}", "text": rows[n]["text"]} for n in range(5)]
    rows.append({"id": "mail", "text": "Write to someone@example.org today.", "url": "mailto:x"})
    rows.append({"id": "french", "text": "Bonjour.", "language": "fr"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "broken\n")
    clean = CleanConfig(language=LanguageConfig(keep=("en", "zh", "und")), pii=PIIConfig("redact"))
    source = SourceConfig("jsonl", path=folder / "rows.jsonl", name="web")
    return build(DataRecipe((source,), held_out_fraction=0.2, clean=clean), folder / "corpus")


@pytest.fixture
def copy(corpus: Corpus, tmp_path: Path) -> Path:
    """A corpus that a test may change."""
    shutil.copytree(corpus.directory, tmp_path / "corpus")
    return tmp_path / "corpus"


def page_of(corpus: Path, **options: Any) -> Page:
    written = data_card(corpus, **options)
    page = written.path.read_text("utf-8")
    assert written.bytes == len(page.encode()) < 500_000
    return Page(page)


def test_it_tells_what_was_read_kept_and_dropped(copy: Path, corpus: Corpus) -> None:
    page = page_of(copy)
    kept, read = corpus.funnel["kept"]["documents"], corpus.funnel["in"]["documents"]
    assert f"{kept} documents with" in page.text
    assert f"保留 {kept} 篇文档" in page.text
    assert f"of {read} read" in page.text
    for reason, drop in corpus.funnel["dropped"].items():
        assert reason in page.text
        assert f"{drop['documents']:,} documents" in page.text
    assert "1 files or rows were broken" in page.text
    assert re.search(r"\bdoc\d+", page.text)
    assert (copy / "card.html").exists()


def test_hosts_licences_languages_and_personal_data_are_counted(copy: Path) -> None:
    card = read_card(copy)
    documents = {row.name: row.documents for row in card.hosts}
    rows = [
        row
        for path in copy.glob("*/documents.parquet")
        for row in pq.read_table(path, columns=["url", "meta", "text"]).to_pylist()
    ]
    assert card.with_url == sum(bool(row["url"]) for row in rows) == sum(documents.values())
    assert documents["a.example"] == sum("www.a.example" in row["url"] for row in rows)
    assert documents["b.example"] == sum("b.example" in row["url"] for row in rows)
    licences = {row.name: row.documents for row in card.licences}
    assert licences["MIT"] == sum('"MIT"' in row["meta"] for row in rows)
    assert sum(licences.values()) == len(rows)
    assert sum(row.bytes for row in card.licences) == card.kept.bytes
    page = page_of(copy)
    for words in ("a.example", "MIT", "none stated", "Chinese, simplified", "电子邮箱"):
        assert words in page.text


def test_the_histogram_counts_every_document_in_its_bin(copy: Path) -> None:
    found = read_card(copy).lengths
    sizes = [
        len(text.encode())
        for path in copy.glob("*/documents.parquet")
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
    ]
    edges = 2.0 ** ((found.first_bin + np.arange(len(found.documents) + 1)) / 2)
    assert list(found.documents) == np.histogram(sizes, edges)[0].tolist()
    assert sum(found.documents) == len(sizes)
    assert found.quantiles["50 %"] == np.median(sizes)
    assert found.quantiles["100 %"] == max(sizes)


def test_what_was_not_done_is_said_and_what_was_is_shown(copy: Path) -> None:
    (copy / "duplicates.json").unlink()  # as in a corpus of another maker
    before = page_of(copy).text
    assert "The text was not compared with evaluation sets." in before
    assert "There is no account of copies" in before
    write_json(copy / "duplicates.json", DUPLICATES)
    write_json(copy / "contamination.json", CONTAMINATION)
    after = page_of(copy).text
    assert "not compared" not in after
    assert "no account" not in after
    assert "Copies among 90 documents, in 4 clusters" in after
    assert "near copies" in after
    assert "k2" in after
    assert "gsm8k 1,319 37" in after
    assert "12 documents were dropped for them" in after


def test_a_recipe_that_looks_for_nothing_personal_is_said_to_look_for_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(20)))
    source = SourceConfig("jsonl", path=tmp_path / "rows.jsonl")
    build(DataRecipe((source,), held_out_fraction=0.3), tmp_path / "corpus")
    page = page_of(tmp_path / "corpus")
    assert "Nobody looked" in page.text
    assert "No document has a URL." in page.text
    assert "No document states a licence" in page.text
    assert "Nothing was dropped." in page.text


def test_examples_stand_under_their_rule_and_side_by_side(copy: Path) -> None:
    rows = [
        {"reason": reason, "id": f"{reason or 'kept'}{n}", "source": "web", "language": "en",
         "url": "", "bytes": 9000, "excerpt": f"An excerpt of {reason or 'kept'} {n}."}
        for reason in ("", "seen before (same text)", "language not kept")
        for n in range(14)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (copy / "examples.jsonl").write_text(text)
    page = page_of(copy).text
    samples, rules = (
        page.index("Samples, kept and dropped 保留"),
        page.rindex("Dropped, rule by rule"),
    )
    beside, below = page[samples:rules], page[rules:]
    assert all(f"An excerpt of kept {n}." in beside for n in range(6))
    assert "An excerpt of seen before (same text) 0." in beside
    assert "An excerpt of language not kept 0." in beside
    for n in range(14):
        assert (f"An excerpt of language not kept {n}." in below) == (n < 10)
    # A reason without examples still names the places that the funnel knows.
    assert "rows.jsonl:68" in below


@pytest.mark.parametrize("form", ["examples", "documents", "names"])
def test_nothing_in_a_document_acts_on_the_page(copy: Path, tmp_path: Path, form: str) -> None:
    if form == "examples":
        fields = ("reason", "id", "source", "language", "url", "excerpt")
        row = dict.fromkeys(fields, EVIL + "\ud800") | {"bytes": 5}
        funnel = json.loads((copy / "funnel.json").read_text())
        funnel["dropped"][EVIL] = {"documents": 1, "bytes": 10, "examples": [EVIL]}
        write_json(copy / "funnel.json", funnel)
        lines = [row | {"reason": EVIL}, row | {"reason": ""}]
        (copy / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    elif form == "names":
        write_json(copy / "duplicates.json", DUPLICATES | {"by_kind": {EVIL: 1}})
        tasks = {EVIL: {"items": 1, "contaminated": 1, "documents": 1}}
        write_json(copy / "contamination.json", {"tasks": tasks, "dropped": 0})
    else:
        rows = [
            {"id": f"{EVIL}{n}", "text": f"{EVIL} {n}", "license": EVIL, "language": EVIL,
             "url": f"javascript:{EVIL}"}
            for n in range(20)
        ]  # fmt: skip
        (tmp_path / "evil.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = SourceConfig("jsonl", path=tmp_path / "evil.jsonl", name=EVIL[:20])
        shutil.rmtree(copy)
        build(DataRecipe((source,), held_out_fraction=0.3), copy)
    page = page_of(copy)
    raw = (copy / "card.html").read_text("utf-8")
    assert "alert(1)" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "iframe", "object", "link")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", raw)
    assert "U+202E" in page.text


def test_the_page_needs_no_network_and_no_script(copy: Path) -> None:
    page = page_of(copy)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "url(" not in (copy / "card.html").read_text()


def test_every_phrase_stands_in_both_languages_and_one_is_shown(copy: Path) -> None:
    write_json(copy / "duplicates.json", DUPLICATES)
    write_json(copy / "contamination.json", CONTAMINATION)
    page = page_of(copy)
    kinds = [a["class"] for _, a in page.tags if a.get("class") in ("en", "zh")]
    assert kinds == ["en", "zh"] * (len(kinds) // 2)
    assert len(kinds) > 100
    chosen = [a for tag, a in page.tags if tag == "input"]
    assert [a["id"] for a in chosen] == ["in-en", "in-zh"]
    assert ["checked" in a for a in chosen] == [True, False]
    assert [a["for"] for tag, a in page.tags if tag == "label"] == ["in-en", "in-zh"]
    style = (copy / "card.html").read_text()
    assert "#in-en:checked ~ * .zh, #in-zh:checked ~ * .en { display: none; }" in style


def test_a_card_of_many_rules_with_long_examples_stays_small(copy: Path) -> None:
    funnel = json.loads((copy / "funnel.json").read_text())
    with open(copy / "examples.jsonl", "w") as file:
        for rule in range(90):
            funnel["dropped"][f"rule{rule}"] = {"documents": 10, "bytes": 9999, "examples": []}
            for number in range(10):
                row = {"reason": f"rule{rule}", "id": f"{rule}/{number}", "excerpt": "长文字" * 200}
                file.write(json.dumps(row) + "\n")
    write_json(copy / "funnel.json", funnel)
    page = page_of(copy)
    assert len((copy / "card.html").read_bytes()) <= MOST_BYTES
    assert "89/9" in page.text


def test_tokens_are_those_of_the_tokenizer(copy: Path, corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = tokenizer_module.train(corpus, 280, tmp_path / "tokenizer")
    counted = sum(
        len(tokenizer.encode(text))
        for path in copy.glob("*/documents.parquet")
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
    )
    card = read_card(copy, tokenizer)
    assert card.tokens is not None
    assert card.tokens.total == pytest.approx(counted)
    page = page_of(copy, tokenizer=tmp_path / "tokenizer")
    assert "Bytes a token" in page.text


def test_a_split_of_several_files_is_read_whole(copy: Path) -> None:
    whole = read_card(copy)
    path = copy / "train" / "documents.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 10), path)
    pq.write_table(table.slice(10), path.with_name("documents-00001.parquet"))
    assert read_card(copy).lengths == whole.lengths
    assert read_card(copy).hosts == whole.hosts


def test_the_same_corpus_gives_the_same_bytes(copy: Path) -> None:
    assert build_page(read_card(copy)) == build_page(read_card(copy))


@pytest.mark.parametrize(
    ("file", "content", "place"),
    [
        ("funnel.json", '{"in": {}}', "funnel.json"),
        ("funnel.json", "[]", "funnel.json"),
        ("duplicates.json", '{"documents": "many"}', "duplicates.json"),
        ("contamination.json", '{"tasks": [], "dropped": 1}', "contamination.json"),
        ("examples.jsonl", '{"reason": "", "id": "a"}\n{"reason": ""}\n', "examples.jsonl:2"),
        ("examples.jsonl", "[" * 100_000, "examples.jsonl:1"),
        ("train/documents.parquet", "no", "documents.parquet"),
    ],
)
def test_a_damaged_file_is_named(copy: Path, file: str, content: str, place: str) -> None:
    (copy / file).write_text(content)
    with pytest.raises(ArtifactError, match=re.escape(place)):
        data_card(copy)
    assert not (copy / "card.html").exists()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://www.Example.org:80/a?b", "example.org"),
        ("http://user:pw@x.example/", "x.example"),
        ("http://例子.中国/", "例子.中国"),
        ("mailto:a@b.c", "mailto"),
        ("http://[::1", "?"),
        ("no url", "?"),
        ("", "?"),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert host_of(url) == host


def test_text_of_strangers_is_isolated_and_its_tricks_are_shown() -> None:
    assert stranger("a\u202eb<c") == '<bdi>a<span class="seen">U+202E</span>b&lt;c</bdi>'
    assert stranger("a\x00\r\ud800\n\t中") == "<bdi>a���\n\t中</bdi>"
