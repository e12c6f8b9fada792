from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import DataError
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import plan_inputs

datasets = pytest.importorskip("datasets")
Read = Callable[..., Any]

ROWS = {
    "text": ["one", "two", None, "four"],
    "url": ["u1", "u2", "u3", "u4"],
    "stars": [1, 2, 3, 4],
    "tags": [["a"], [], [], []],
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the environment once, when they are imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("several", [False, True])
def test_a_saved_copy_is_read_row_by_row(tmp_path: Path, read: Read, several: bool) -> None:
    table = datasets.Dataset.from_dict(ROWS)
    saved = datasets.DatasetDict({"train": table, "test": table.select([0])}) if several else table
    saved.save_to_disk(str(tmp_path / "copy"))
    documents, skipped = read(SourceConfig("huggingface", path=tmp_path / "copy"))
    assert [(d.id, d.text, d.url, d.meta) for d in documents] == [
        ("row 0", "one", "u1", {"stars": 1, "offset": 0}),
        ("row 1", "two", "u2", {"stars": 2, "offset": 1}),
        ("row 3", "four", "u4", {"stars": 4, "offset": 3}),
    ]
    assert [(s.where, s.reason, s.broken) for s in skipped] == [
        ("row 2", "no text under `text`", True)
    ]


def test_rows_are_cut_into_splits_that_name_the_same_rows(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.Dataset.from_dict({"text": [f"t{n}" for n in range(25)]}).save_to_disk(str(tmp_path))
    source = SourceConfig("huggingface", path=tmp_path)
    whole, _ = read(source)
    monkeypatch.setattr("isoflop.data.sources.hugging_face._ROWS_PER_SPLIT", 7)
    assert len(plan_inputs(source, 0)) == 4
    cut, _ = read(source)
    assert sorted(cut, key=lambda d: d.text) == sorted(whole, key=lambda d: d.text)


def test_a_folder_of_files_is_streamed_by_split(tmp_path: Path, read: Read) -> None:
    for split in ("train", "test"):
        lines = [json.dumps({"text": f"{split} {n}"}) for n in range(3)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    documents, _ = read(SourceConfig("huggingface", path=tmp_path, split="test"))
    assert [d.text for d in documents] == ["test 0", "test 1", "test 2"]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nobody/nothing.*cannot be read.*copy the data set here"):
        plan_inputs(SourceConfig("huggingface", dataset="nobody/nothing"), 0)
    datasets.Dataset.from_dict(ROWS).save_to_disk(str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        plan_inputs(SourceConfig("huggingface", path=tmp_path / "nowhere"), 0)
