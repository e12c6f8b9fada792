from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from isoflop.core.artifact import read_manifest
from isoflop.core.engine import work_path
from isoflop.core.errors import ArtifactError, DataError, RunError
from isoflop.data import annotate as annotate_module
from isoflop.data import parts as parts_module
from isoflop.data import shards as shards_module
from isoflop.data.choose import SPLITS
from isoflop.data.clean_recipe import CleanConfig, PIIConfig, QualityConfig
from isoflop.data.corpus import Corpus, build, inspect, split_path
from isoflop.data.judge import split_draw
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.tokenizer import Tokenizer


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
    assert {row["source"] for row in found if "offset" in json.loads(row["meta"])} == {"jsonl"}


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


# --- the engine under it -------------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is cut as finely as that of a corpus of gigabytes."""
    monkeypatch.setattr(annotate_module, "_MIN_PIECE_BYTES", 1 << 16)
    monkeypatch.setattr(annotate_module, "_PIECES", 10**6)


def files(corpus: Corpus) -> dict[str, str]:
    return read_manifest(corpus.directory).files


def finished_tasks(work: Path) -> Counter[str]:
    """Stage → tasks that the working folder holds."""
    return Counter(path.parts[-3] for path in work.glob("*/*/task.json"))


@pytest.mark.usefixtures("small_pieces")
def test_processes_give_the_bytes_that_one_process_gives(
    recipe: DataRecipe, tmp_path: Path
) -> None:
    alone = build(recipe, tmp_path / "alone", keep_work=True)
    assert finished_tasks(work_path(alone.directory))["read"] > 4
    spread = build(recipe, tmp_path / "spread", placement="processes:2")
    assert files(spread) == files(alone)
    assert not work_path(spread.directory).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_pieces")
def test_a_local_ray_cluster_of_two_workers_gives_the_same_corpus_and_shards(
    recipe: DataRecipe, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    built = {
        where: build(recipe, tmp_path / where, placement=where)
        for where in ("inline", "processes:3", "ray:2")
    }
    assert len({tuple(files(corpus).items()) for corpus in built.values()}) == 1
    made = [
        shards_module.tokenize(
            corpus, tokenizer.directory, tmp_path / f"shards {where}", placement=where
        )
        for where, corpus in built.items()
    ]
    manifests = [read_manifest(shards.directory).files for shards in made]
    assert manifests[0] == manifests[1] == manifests[2]


@pytest.mark.usefixtures("small_pieces")
def test_a_changed_threshold_repeats_only_the_stages_after_it(
    recipe: DataRecipe, tmp_path: Path
) -> None:
    def rebuilt(changed: DataRecipe) -> Counter[str]:
        """Build again; stage → tasks that were not there before."""
        work = work_path(tmp_path / "c")
        before = {path.parent for path in work.glob("*/*/task.json")}
        build(changed, tmp_path / "c", keep_work=True)
        return Counter(
            path.parts[-3] for path in work.glob("*/*/task.json") if path.parent not in before
        )

    quality = QualityConfig(english=("gopher-quality",), thresholds={"gopher-quality.few-words": 3})
    first = dataclasses.replace(recipe, clean=CleanConfig(quality=quality))
    done = rebuilt(first)
    assert done["read"] == done["judge"] == done["account"] > 4
    assert rebuilt(first) == {}
    looser = dataclasses.replace(quality, thresholds={"gopher-quality.few-words": 2})
    again = rebuilt(dataclasses.replace(first, clean=CleanConfig(quality=looser)))
    assert (again["read"], again["judge"]) == (0, done["judge"])
    more_held_out = dataclasses.replace(first, held_out_fraction=0.2)
    rebuilt(first)
    assert set(rebuilt(more_held_out)) == {"choose", "write", "signals", "account"}
    other_seed = dataclasses.replace(first, seed=4)
    assert rebuilt(other_seed)["read"] > 0


def test_a_cap_keeps_the_same_documents_however_the_reading_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_texts(tmp_path / "texts", 400)
    source = SourceConfig("text", path=folder, max_bytes=2_000)
    recipe = DataRecipe((source,), held_out_fraction=0.3)
    whole = build(recipe, tmp_path / "whole")
    monkeypatch.setattr(annotate_module, "_MIN_PIECE_BYTES", 1 << 10)
    monkeypatch.setattr(annotate_module, "_PIECES", 10**6)
    cut = build(recipe, tmp_path / "cut")
    for split in SPLITS:
        assert rows(cut, split) == rows(whole, split)
    assert cut.funnel["in"]["documents"] < whole.funnel["in"]["documents"] == 400
    assert whole.funnel["dropped"]["beyond max_bytes"]["documents"] == 400 - len(
        [row for split in SPLITS for row in rows(whole, split)]
    )


@pytest.mark.usefixtures("small_pieces")
def test_a_split_of_many_bytes_is_several_files(
    recipe: DataRecipe, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "PART_BYTES", 50_000)
    many = build(recipe, tmp_path / "many")
    assert len(list((many.directory / "train").iterdir())) > 2
    for split in SPLITS:
        one, several = (
            [row for table in c.row_groups(split, ["id", "text"]) for row in table.to_pylist()]
            for c in (corpus, many)
        )
        assert one == several


def test_examples_are_at_most_ten_of_a_reason_and_hide_personal_data(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts", 40)
    for number in range(15):
        (folder / f"copy{number}.txt").write_text("document 3\n")
    (folder / "broken.txt").write_bytes(b"\xff\xfe\xfd")
    for number in range(30):
        (folder / f"mail{number}.txt").write_text(f"Write to ann.lee{number}@corp.co.uk\n")
    clean = CleanConfig(pii=PIIConfig(action="redact"))
    corpus = build(
        DataRecipe((SourceConfig("text", path=folder),), 0.3, clean=clean), tmp_path / "c"
    )
    found = [
        json.loads(line)
        for line in (corpus.directory / "examples.jsonl").read_text("utf-8").splitlines()
    ]
    counts = Counter(row["reason"] for row in found)
    assert counts[""] == counts["seen before (same text)"] == 10
    assert sum(counts.values()) == 20 + min(10, corpus.funnel["rejects"])
    assert set(found[0]) == {"reason", "id", "source", "language", "url", "bytes", "excerpt"}
    assert not any("@" in row["excerpt"] for row in found)


def test_a_crash_on_a_document_names_it_and_a_repair_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_texts(tmp_path / "texts", 30)
    recipe = DataRecipe((SourceConfig("text", path=folder),), held_out_fraction=0.3)

    def fail(self: Any, document: Any) -> None:
        raise ZeroDivisionError("oops")

    with monkeypatch.context() as patch:
        patch.setattr(annotate_module.Annotator, "__call__", fail)
        with pytest.raises(RunError, match=r"source `text`, \d+\.txt, document \d+\.txt.*oops"):
            build(recipe, tmp_path / "c")
    assert build(recipe, tmp_path / "c").funnel["kept"]["documents"] == 30


RECIPE_TOML = """
held_out_fraction = 0.1
[[sources]]
kind = "text"
path = "{folder}"
language = "code"
[[sources]]
kind = "jsonl"
path = "{folder}/mixed.jsonl"
[[sources]]
kind = "word-problems"
documents = 6_000
[clean.quality]
english = ["gopher-repetition"]
[duplicates]
near = true
substrings = "cut"
"""


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(
    text_folder: Path, tmp_path: Path, isoflop: Any
) -> None:
    path = tmp_path / "data.toml"
    path.write_text(RECIPE_TOML.format(folder=text_folder))
    began = time.monotonic()
    command = ("data", "build", path, "--placement", "processes:2")
    assert isoflop.run(*command, "-o", tmp_path / "whole").returncode == 0
    seconds = time.monotonic() - began
    draw, kills = random.Random(0), 0
    for _ in range(10):
        with isoflop.start(*command, "-o", tmp_path / "killed") as process:
            time.sleep(draw.uniform(0.2, 0.8) * seconds)
            if process.poll() is None:
                kills += 1
                process.send_signal(signal.SIGKILL)
            process.wait()
    assert isoflop.run(*command, "-o", tmp_path / "killed").returncode == 0
    assert kills >= 5
    whole, killed = (inspect(tmp_path / name) for name in ("whole", "killed"))
    assert files(killed) == files(whole)
    identities = [(row["source"], row["id"]) for split in SPLITS for row in rows(killed, split)]
    assert len(set(identities)) == len(identities) == killed.funnel["kept"]["documents"]
    assert sorted(os.listdir(tmp_path)) == ["data.toml", "killed", "whole"]
