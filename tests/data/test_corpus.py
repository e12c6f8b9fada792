from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from isoflop.core.artifact import read_manifest
from isoflop.core.errors import ArtifactError, DataError
from isoflop.data.choose import SPLITS
from isoflop.data.corpus import Corpus, build, inspect, split_path
from isoflop.data.judge import split_draw
from isoflop.data.recipe import DataRecipe, SourceConfig


def rows(corpus: Corpus, split: str) -> list[dict[str, str]]:
    table = pq.read_table(split_path(corpus.directory, split))
    result: list[dict[str, str]] = table.to_pylist()
    return result


def write_texts(folder: Path, n: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        (folder / f"{number}.txt").write_text(f"document {number}\n", encoding="utf-8")
    return folder


def test_every_document_is_kept_or_dropped_for_a_reason(corpus: Corpus) -> None:
    funnel = corpus.funnel
    dropped = sum(drop["documents"] for drop in funnel["dropped"].values())
    assert funnel["in"]["documents"] == funnel["kept"]["documents"] + dropped
    assert funnel["kept"]["documents"] == sum(
        p["kept"]["documents"] for p in funnel["sources"].values()
    )
    for split in SPLITS:
        found = rows(corpus, split)
        account = funnel["splits"][split]
        assert account["documents"] == len(found)
        assert account["bytes"] == sum(len(row["text"].encode()) for row in found)
        assert account["documents"] == sum(p["documents"] for p in account["languages"].values())


def test_documents_carry_where_they_come_from(corpus: Corpus) -> None:
    found = [row for split in SPLITS for row in rows(corpus, split)]
    assert {row["source"] for row in found} == {"text", "jsonl", "word-problems"}
    assert {row["language"] for row in found} == {"code", "mixed", "en", "zh"}
    assert len({(row["source"], row["id"]) for row in found}) == len(found)
    assert all(json.loads(row["meta"]) == {} for row in found)


def test_the_same_recipe_gives_the_same_bytes(
    recipe: DataRecipe, corpus: Corpus, tmp_path: Path
) -> None:
    again = build(recipe, tmp_path / "again")
    assert read_manifest(again.directory).files == read_manifest(corpus.directory).files


def test_no_text_is_in_both_splits_and_the_split_ignores_the_order_of_sources(
    recipe: DataRecipe, corpus: Corpus, tmp_path: Path
) -> None:
    turned = build(dataclasses.replace(recipe, sources=recipe.sources[::-1]), tmp_path / "turned")
    for split in SPLITS:
        assert {r["text"] for r in rows(corpus, split)} == {r["text"] for r in rows(turned, split)}
    train, held = ({r["text"] for r in rows(corpus, split)} for split in SPLITS)
    assert not train & held


def test_the_held_out_share_is_the_one_asked_for() -> None:
    n, share = 20_000, 0.1
    found = sum(split_draw(f"text {i}", 5) < share * 2.0**64 for i in range(n))
    assert abs(found - n * share) < 5 * (n * share * (1 - share)) ** 0.5


def test_a_larger_share_only_adds_held_out_documents(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts", 200)
    recipe = DataRecipe((SourceConfig("text", path=folder),), held_out_fraction=0.1)
    larger = dataclasses.replace(recipe, held_out_fraction=0.3)
    few, many = (
        {row["text"] for row in rows(build(r, tmp_path / "c"), "held_out")}
        for r in (recipe, larger)
    )
    assert few < many


def test_a_cap_stops_at_the_first_document_beyond_it(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts", 100)
    source = SourceConfig("text", path=folder, max_bytes=500)
    kept = build(DataRecipe((source,), held_out_fraction=0.3), tmp_path / "c").funnel["kept"]
    assert 500 <= kept["bytes"] < 500 + len("document 99\n")


def test_broken_lines_are_counted_in_the_funnel_and_listed_in_rejects(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", 30)
    (tmp_path / "x.jsonl").write_text('{"text": "fine"}\n{"text": \n{"text": "fine"}\nnonsense\n')
    recipe = DataRecipe(
        (SourceConfig("text", path=texts), SourceConfig("jsonl", path=tmp_path / "x.jsonl")), 0.3
    )
    corpus = build(recipe, tmp_path / "c")
    lines = (corpus.directory / "rejects.jsonl").read_text("utf-8").splitlines()
    rejects = [json.loads(line) for line in lines]
    assert [(r["source"], r["file"], r["line"], r["reason"]) for r in rejects] == [
        ("jsonl", "x.jsonl", 2, "broken JSON line"),
        ("jsonl", "x.jsonl", 4, "broken JSON line"),
    ]
    broken = corpus.funnel["dropped"]["broken JSON line"]
    assert (broken["documents"], broken["examples"]) == (2, ["x.jsonl:2", "x.jsonl:4"])
    assert corpus.funnel["dropped"]["seen before (same text)"]["documents"] == 1
    assert corpus.funnel["rejects"] == 2


def test_examples_of_a_reason_stop_at_ten(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts", 30)
    for number in range(30):
        (folder / f"empty{number}.txt").write_text(" \n")
    empty = build(DataRecipe((SourceConfig("text", path=folder),), 0.3), tmp_path / "c")
    assert empty.funnel["dropped"]["empty"]["documents"] == 30
    assert len(empty.funnel["dropped"]["empty"]["examples"]) == 10


def test_a_source_without_one_usable_document_is_an_error_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    texts = write_texts(tmp_path / "texts", 30)
    (tmp_path / "x.jsonl").write_text("nonsense\n")
    recipe = DataRecipe(
        (SourceConfig("text", path=texts), SourceConfig("jsonl", path=tmp_path / "x.jsonl")), 0.3
    )
    with pytest.raises(DataError, match=r"source `jsonl`.*not one usable.*broken JSON line \(1\)"):
        build(recipe, tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["texts", "x.jsonl"]


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", 3)
    recipe = DataRecipe((SourceConfig("text", path=texts),), held_out_fraction=1e-9)
    with pytest.raises(DataError, match="the held-out split is empty: 3 documents"):
        build(recipe, tmp_path / "c")


def test_another_directory_is_not_overwritten(recipe: DataRecipe, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="not an Isoflop artifact"):
        build(recipe, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_inspecting_gives_the_funnel_that_building_gave(corpus: Corpus) -> None:
    assert inspect(corpus.directory) == corpus


def test_a_damaged_corpus_names_its_file(recipe: DataRecipe, tmp_path: Path) -> None:
    corpus = build(recipe, tmp_path / "c")
    path = split_path(corpus.directory, "train")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"train/documents\.parquet"):
        list(corpus.documents("train"))
    (corpus.directory / "funnel.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"funnel\.json"):
        inspect(corpus.directory)
