from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from isoflop.core.errors import DataError, RecipeError
from isoflop.data.duplicates_recipe import DecontaminateConfig, EvaluationSet
from isoflop.data.evaluation_sets import read_items

ROWS = [
    {"id": 1, "question": "How far?", "choices": {"text": ["near", "far"], "label": ["A", "B"]}},
    {"id": 2, "question": "多远？", "choices": {"text": ["近"], "label": ["A"]}},
]
EVERYTHING = [("How far?", "near", "far", "A", "B"), ("多远？", "近", "A")]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_every_form_gives_the_same_items(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"set{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(lines))
    assert read_items(EvaluationSet(path)) == EVERYTHING
    assert read_items(EvaluationSet(path, keys=("choices", "question"))) == [
        ("near", "far", "A", "B", "How far?"),
        ("近", "A", "多远？"),
    ]


def test_a_text_file_gives_an_item_a_line(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text("first item\n\n  second item\n")
    assert read_items(EvaluationSet(path)) == [("first item",), ("second item",)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.jsonl", b'{"a": "b"}\n{"a": ', "line 2 is not JSON"),
        ("empty.jsonl", b"\n", "holds no text"),
        ("cut.jsonl.gz", gzip.compress(b'{"a": "b"}\n' * 99, mtime=0)[:30], "cannot be read"),
        ("torn.jsonl.zst", b"no frame of it", "cannot be read"),
        ("set.xlsx", b"?", "not known by its name"),
        ("latin.txt", b"caf\xe9", "cannot be read"),
        ("cut.parquet", b"PAR1", "cannot be read"),
        ("deep.jsonl", b"[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_a_broken_set_is_refused_by_name(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_items(EvaluationSet(tmp_path / name))
    assert name in str(caught.value)


def test_a_missing_set_or_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_items(EvaluationSet(tmp_path / "none.jsonl"))
    (tmp_path / "set.jsonl").write_text('{"a": "b"}\n')
    with pytest.raises(DataError, match="no text under question"):
        read_items(EvaluationSet(tmp_path / "set.jsonl", keys=("question",)))


def test_impossible_values_are_all_listed() -> None:
    same = (EvaluationSet(Path("a/x.jsonl")), EvaluationSet(Path("b/x.jsonl.gz")))
    with pytest.raises(RecipeError, match=r"ngram.*2; .*overlap.*0.*; two tasks are called `x`"):
        DecontaminateConfig(same, ngram=2, overlap=0.0)
