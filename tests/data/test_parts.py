from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isoflop.data import parts as parts_module
from isoflop.data.parts import _row_groups, part_path, part_paths


@pytest.mark.parametrize("cut", [1, 7, 50, 200])
def test_row_groups_end_with_the_row_that_fills_them_however_the_rows_come(
    cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "ROW_GROUP_BYTES", 1_000)
    sizes = np.random.default_rng(0).integers(0, 400, 200)
    texts = ["x" * int(size) for size in sizes]
    tables = [pa.table({"text": texts[at : at + cut]}) for at in range(0, 200, cut)]
    groups = [table["text"].to_pylist() for table in _row_groups(tables)]
    assert [text for group in groups for text in group] == texts
    for group in groups[:-1]:
        assert sum(map(len, group)) >= 1_000 > sum(map(len, group[:-1]))


def test_a_document_larger_than_a_row_group_is_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts_module, "ROW_GROUP_BYTES", 10)
    tables = [pa.table({"text": ["x" * 50, "y" * 50]}), pa.table({"text": ["z"]})]
    assert [len(table) for table in _row_groups(tables)] == [1, 1, 1]


def test_parts_are_found_in_the_order_in_which_they_are_numbered(tmp_path: Path) -> None:
    first = tmp_path / "documents.parquet"
    names = [part_path(first, number) for number in range(12)]
    assert names[0] == first
    assert names[11].name == "documents-00011.parquet"
    for path in reversed(names):
        path.touch()
    assert part_paths(first) == names
