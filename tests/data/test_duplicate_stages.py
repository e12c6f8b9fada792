"""A build's duplicates, beside those that the same rules find among documents in memory."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from isoflop.core.artifact import read_json, read_manifest
from isoflop.core.engine import engine as engine_module
from isoflop.core.errors import ArtifactError
from isoflop.data import annotate as annotate_module
from isoflop.data.choose import OF_KIND, SPLITS
from isoflop.data.corpus import Corpus, build, split_path
from isoflop.data.documents import Document
from isoflop.data.duplicates import KINDS, documents_duplicates
from isoflop.data.duplicates_recipe import DecontaminateConfig, DuplicatesConfig, EvaluationSet
from isoflop.data.leaks import EVALUATION_ITEMS
from isoflop.data.recipe import DataRecipe, SourceConfig

EVERYTHING = DuplicatesConfig(url=True, near=True, substrings="cut")


def words(draw: random.Random, n: int) -> list[str]:
    return [f"w{draw.randrange(5000)}" for _ in range(n)]


def sentence_lines(tokens: list[str]) -> str:
    return "\n".join(" ".join(tokens[at : at + 8]) for at in range(0, len(tokens), 8)) + "\n"


def planted(seed: int, families: int = 40) -> list[dict[str, str]]:
    """Texts of their own, some with copies: whole, changed, under one address, pieced, quoted."""
    draw = random.Random(seed)
    rows: list[dict[str, str]] = []
    for family in range(families):
        tokens = words(draw, draw.randrange(80, 240))
        rows.append({"text": sentence_lines(tokens), "url": f"https://a.example/{family}"})
        kind = family % 6
        if kind == 0:
            rows.append({"text": rows[-1]["text"], "url": ""})
        elif kind == 1:  # few and many words changed: some pairs are near 0.7
            for share in (0.01, 0.03, 0.05):
                changed = [t if draw.random() > share else "other" for t in tokens]
                rows.append({"text": sentence_lines(changed), "url": ""})
        elif kind == 2:
            text, url = sentence_lines(words(draw, 60)), f"http://www.a.example/{family}/?utm_x=1"
            rows.append({"text": text, "url": url})
        elif kind == 3:
            half = sentence_lines(tokens[:64]) + sentence_lines(words(draw, 40))
            rows.append({"text": half, "url": ""})
        elif kind == 4:
            quoted = " ".join(words(draw, 90) + tokens[3:73] + words(draw, 90))
            rows.append({"text": f"{quoted}\n", "url": ""})
    draw.shuffle(rows)
    return [row | {"id": str(number)} for number, row in enumerate(rows)]


def write_rows(rows: list[dict[str, str]], path: Path) -> SourceConfig:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return SourceConfig("jsonl", path=path, name="rows")


def texts_of(corpus: Corpus) -> dict[str, str]:
    """Id → text of what a corpus keeps."""
    tables = [pq.read_table(split_path(corpus.directory, split)) for split in SPLITS]
    return {row["id"]: row["text"] for table in tables for row in table.to_pylist()}


def documents(rows: list[dict[str, str]]) -> list[Document]:
    return [Document(r["id"], r["text"], "rows", "und", r["url"]) for r in rows]


@pytest.fixture
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and ranges of keys so small that duplicates lie in different ones."""
    monkeypatch.setattr(engine_module, "PARTITION_BYTES", 20_000)
    monkeypatch.setattr(annotate_module, "_MIN_PIECE_BYTES", 1 << 13)


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize(
    "config",
    [EVERYTHING, replace(EVERYTHING, substrings="drop", prefer="first"), DuplicatesConfig()],
)
def test_a_build_drops_what_the_same_rules_find_in_memory(
    config: DuplicatesConfig, tmp_path: Path
) -> None:
    rows = planted(1)
    recipe = DataRecipe((write_rows(rows, tmp_path / "rows.jsonl"),), 0.3, duplicates=config)
    corpus = build(recipe, tmp_path / "corpus")
    found = documents_duplicates(documents(rows), config)
    kept = {str(number) for number in np.flatnonzero(found.kinds < 0)}
    texts = texts_of(corpus)
    assert texts.keys() == kept
    changed = {i for i in kept if texts[i] != rows[int(i)]["text"]}
    assert changed == {str(number) for number in found.cuts}
    expected = found.report(lambda n: f"rows {rows[n]['id']}")
    report = read_json(corpus.directory / "duplicates.json")
    for account in (report, expected):  # the order of equal clusters is that of reading
        account["largest"] = [cluster["size"] for cluster in account["largest"]]
    assert report == expected
    dropped = corpus.funnel["dropped"]
    counts = {kind: dropped.get(reason, {"documents": 0}) for kind, reason in OF_KIND.items()}
    assert {k: c["documents"] for k, c in counts.items()} == {
        kind: report["by_kind"][kind] for kind in OF_KIND
    }
    asked = KINDS[:3] if config.near else ("exact", "line")
    assert all(report["by_kind"][kind] for kind in asked)


@pytest.mark.usefixtures("many_pieces")
def test_a_copy_of_a_source_before_its_cap_outlives_a_longer_one_beyond_it(tmp_path: Path) -> None:
    rows = [r for r in planted(2, 20) if r["url"]]
    longer = [{"text": f"{r['text']}more words\n", "id": f"{r['id']}+", "url": ""} for r in rows]
    cap = sum(len(r["text"]) for r in rows)
    source = replace(write_rows(rows + longer, tmp_path / "rows.jsonl"), max_bytes=cap)
    recipe = DataRecipe((source,), 0.3, duplicates=DuplicatesConfig(near=True))
    assert texts_of(build(recipe, tmp_path / "c")).keys() == {r["id"] for r in rows}


def leaking(tmp_path: Path, action: Any) -> tuple[DataRecipe, list[dict[str, str]]]:
    """Ten questions in documents, ten held back; the document of number 0 has a clean copy."""
    draw = random.Random(5)
    questions = [" ".join(words(draw, 30)) for _ in range(20)]
    (tmp_path / "quiz.txt").write_text("\n".join(questions))
    rows = []
    for number in range(30):
        text = sentence_lines(words(draw, 150))
        leak = f"{questions[number]}\n" if number < 10 else ""
        rows.append({"text": f"{text}{leak}{text[:600][::-1]}\n", "id": str(number), "url": ""})
    rows.append({"text": rows[0]["text"].replace(questions[0], ""), "id": "clean", "url": ""})
    tasks = (EvaluationSet(tmp_path / "quiz.txt"),)
    source = write_rows(rows, tmp_path / "rows.jsonl")
    keep_out = DecontaminateConfig(tasks, action=action)
    duplicates = DuplicatesConfig(near=True)
    return DataRecipe((source,), 0.3, decontaminate=keep_out, duplicates=duplicates), rows


@pytest.mark.parametrize("action", ["drop", "cut", "report"])
def test_leaked_items_are_dropped_cut_or_only_counted(action: Any, tmp_path: Path) -> None:
    recipe, rows = leaking(tmp_path, action)
    corpus = build(recipe, tmp_path / "c")
    report = read_json(corpus.directory / "contamination.json")
    dropped = 10 if action == "drop" else 0
    quiz = {"items": 20, "contaminated": 10, "undecided": 0, "documents": 10}
    assert report == {"tasks": {"quiz": quiz}, "dropped": dropped}
    assert corpus.funnel["dropped"].get(EVALUATION_ITEMS, {"documents": 0})["documents"] == dropped
    texts = texts_of(corpus)
    clean = {str(number) for number in range(10, 30)}
    assert clean <= texts.keys()
    assert all(texts[i] == rows[int(i)]["text"] for i in clean)
    if action == "drop":
        assert texts.keys() == clean | {"clean"}  # the leaky twin took nothing away
    questions = (tmp_path / "quiz.txt").read_text().split("\n")[:10]
    held = [question in text for question in questions for text in texts.values()]
    assert sum(held) >= 9 if action == "report" else not any(held)


def test_a_build_matches_an_index_and_extends_it(tmp_path: Path) -> None:
    rows = planted(3)
    config, index = DuplicatesConfig(near=True), tmp_path / "index"
    first = DataRecipe((write_rows(rows[:40], tmp_path / "1.jsonl"),), 0.3, duplicates=config)
    old = build(first, tmp_path / "old", remember=index)
    again = replace(config, index=index)
    second = DataRecipe((write_rows(rows[30:], tmp_path / "2.jsonl"),), 0.3, duplicates=again)
    new = build(second, tmp_path / "new", remember=index)
    kept = texts_of(old)
    assert not kept.keys() & texts_of(new).keys()
    assert read_json(index / "index.json")["documents"] == len(kept) + len(texts_of(new))
    # What fell for its lines, or at the end of a chain, is in no index; what was kept is.
    third = texts_of(build(second, tmp_path / "third"))
    assert not third.keys() & (kept.keys() | texts_of(new).keys())
    with pytest.raises(ArtifactError, match="nowhere"):
        build(replace(second, duplicates=replace(config, index=tmp_path / "nowhere")), tmp_path)


@pytest.mark.usefixtures("many_pieces")
def test_processes_give_the_same_survivors_and_a_threshold_repeats_what_depends_on_it(
    tmp_path: Path,
) -> None:
    source = write_rows(planted(4), tmp_path / "rows.jsonl")
    recipe = DataRecipe((source,), 0.3, duplicates=EVERYTHING)
    out = tmp_path / "alone"
    alone = build(recipe, out, keep_work=True)
    spread = build(recipe, tmp_path / "spread", placement="processes:2")
    assert read_manifest(spread.directory).files == read_manifest(alone.directory).files

    work = tmp_path / "alone.work"
    before = {path.parent for path in work.glob("*/*/task.json")}
    build(replace(recipe, duplicates=replace(EVERYTHING, similarity=0.9)), out, keep_work=True)
    new = {path.parts[-3] for path in work.glob("*/*/task.json") if path.parent not in before}
    assert {"pairs", "near"} <= new
    assert not new & {"read", "judge", "keys", "signatures", "texts", "lines", "exact", "bands"}
