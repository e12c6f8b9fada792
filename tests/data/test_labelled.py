from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isoflop.core.errors import DataError
from isoflop.data.corpus import Corpus
from isoflop.data.labelled import Example, read_both, read_labels, read_text

ROWS = [
    {"text": "a", "stars": 5, "kind": "good", "ok": True},
    {"text": "b", "stars": 2.5, "kind": "bad", "ok": False},
    {"text": "c", "stars": 3, "kind": "good", "ok": True},
    {"text": "d"},
    {"stars": 3},
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    jsonl, parquet = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    columns = {key: [row.get(key) for row in ROWS] for key in ROWS[0]}
    pq.write_table(pa.table(columns), parquet)
    return {"jsonl": jsonl, "parquet": parquet}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("label", "positive", "expected"),
    [
        ("stars", "3", [True, False, True]),
        ("stars", "4.5", [True, False, False]),
        ("kind", "good", [True, False, True]),
        ("ok", "1", [True, False, True]),
        ("stars", "good", [False, False, False]),
    ],
)
def test_the_kind_stands_in_a_column(
    files: dict[str, Path], form: str, label: str, positive: str, expected: list[bool]
) -> None:
    found = read_labels(files[form], label, positive)
    assert found == [Example(t, p) for t, p in zip("abc", expected, strict=True)]


def test_two_paths_hold_the_two_kinds(files: dict[str, Path], corpus: Corpus) -> None:
    found = read_both(corpus.directory, files["jsonl"])
    kept = corpus.funnel["kept"]["documents"]
    assert [e.positive for e in found] == [True] * kept + [False] * 4
    assert [e.text for e in found[kept:]] == ["a", "b", "c", "d"]


def test_text_files_and_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("first")
    (tmp_path / "two.md").write_text("second")
    assert sorted(read_text(tmp_path)) == ["first", "second"]
    assert read_text(tmp_path / "one.txt") == ["first"]


def test_a_corpus_label_stands_in_meta(tmp_path: Path, files: dict[str, Path]) -> None:
    from isoflop.data.corpus import build
    from isoflop.data.recipe import DataRecipe, SourceConfig

    source = SourceConfig("jsonl", path=files["jsonl"])
    build(DataRecipe((source,), held_out_fraction=0.5, seed=2), tmp_path / "corpus")
    found = read_labels(tmp_path / "corpus", "kind", "good")
    assert {e.text.strip(): e.positive for e in found} == {"a": True, "b": False, "c": True}


def test_what_holds_no_examples_is_named(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="no document has a text and a `quality`"):
        read_labels(files["jsonl"], "quality", "1")
    files["parquet"].write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"rows\.parquet.*cannot be read"):
        read_labels(files["parquet"], "kind", "good")
    with pytest.raises(DataError, match="no corpus, JSONL"):
        read_text(tmp_path / "no.xyz")
    with pytest.raises(DataError, match="no text under `body`"):
        read_text(files["jsonl"], "body")
