"""Tables of runs: what is read, what is left out and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.core.errors import TableError
from isoflop.laws import RunTable, read_table
from isoflop.laws.records import select

ROWS = [(1e6, 1e8, 4.0), (2e6, 1e8, 3.8), (1e6, 2e8, 3.7), (2e6, 2e8, 3.5)]


def write_csv(path: Path, rows: list[str], header: str = "params,tokens,loss") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_csv_jsonl_parquet_and_a_ladder_directory_give_the_same_table(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [f"{n},{d},{loss}" for n, d, loss in ROWS]
    records = [dict(zip(("params", "tokens", "loss"), row, strict=True)) for row in ROWS]
    (tmp_path / "ladder").mkdir()
    paths = [
        write_csv(tmp_path / "a.csv", lines),
        tmp_path / "b.jsonl",
        tmp_path / "c.parquet",
        write_csv(tmp_path / "ladder" / "runs.csv", lines).parent,
    ]
    paths[1].write_text("\n".join(map(json.dumps, records)))
    pq.write_table(pa.Table.from_pylist(records), paths[2])
    expected = np.array(ROWS).T
    for path in paths:
        table = read_table(path)
        np.testing.assert_array_equal([table.params, table.tokens, table.loss], expected)
        np.testing.assert_allclose(table.flops, 6 * expected[0] * expected[1])
        assert table.source[0]["path"] == str(path)
        assert len(table.source[0]["sha256"]) == 64
    assert len(read_table(paths)) == 4 * len(ROWS)


def test_other_names_of_columns_are_mapped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["1e6,1e8,4"], "N,D,final_loss")
    table = read_table(path, {"params": "N", "tokens": "D", "loss": "final_loss"})
    assert (table.params[0], table.tokens[0], table.loss[0]) == (1e6, 1e8, 4.0)


def test_missing_columns_are_an_error_that_proposes_the_mapping(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["1e6,1e8,4"], "N,D,val_loss")
    with pytest.raises(TableError, match="--columns params=N,tokens=D,loss=val_loss"):
        read_table(path)


def test_a_mapping_to_a_column_that_is_not_there_names_it(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["1e6,1e8,4"], "N,D,loss")
    with pytest.raises(TableError, match="no column Q"):
        read_table(path, {"params": "Q", "tokens": "D"})
    with pytest.raises(TableError, match="size is no column of a run table"):
        read_table(path, {"size": "N"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1e6,-5,4", "tokens is -5, which is not positive"),
        ("0,1e8,4", "params is 0, which is not positive"),
        ("1e6,1e8,nan", "loss is missing"),
        ("1e6,1e8,", "loss is missing"),
        ("1e6,1e8", "loss is missing"),
        ("1e6,1e8,inf", "loss is infinite"),
        ("big,1e8,4", "params is 'big', not a number"),
        ("1e6,1e8,60", "loss 60 is worse than guessing: diverged"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed_with_line_and_reason(
    tmp_path: Path, row: str, reason: str
) -> None:
    good = [f"{n},{d},{loss}" for n, d, loss in ROWS]
    path = write_csv(tmp_path / "a.csv", [*good[:2], row, *good[2:]])
    table = read_table(path)
    assert len(table) == 4
    (rejected,) = table.rejected
    assert rejected.reason == reason
    assert rejected.where == f"{path}:4"


def test_a_broken_json_line_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"params": 1e6, "tokens": 1e8, "loss": 4}\n{"params": \n[1]\n')
    table = read_table(path)
    assert len(table) == 1
    assert [r.where for r in table.rejected] == [f"{path}:2", f"{path}:3"]


def test_a_table_without_a_usable_row_is_refused_with_the_first_reason() -> None:
    with pytest.raises(TableError, match=r"none of the 2 rows.*tokens is -1"):
        RunTable.from_arrays([1e6, 1e6], [-1.0, -2.0], [3.0, 3.0])


def test_perplexities_are_refused() -> None:
    with pytest.raises(TableError, match=r"perplexity.*natural logarithm"):
        RunTable.from_arrays([1e6] * 4, [1e8] * 4, [80.0, 60.0, 40.0, 20.0])


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(TableError, match="params 2, tokens 3, loss 3"):
        RunTable.from_arrays([1e6, 2e6], [1e8] * 3, [3.0] * 3)


def test_flops_far_from_6nd_are_questioned() -> None:
    table = RunTable.from_arrays([1e6, 2e6], [1e8, 1e8], [4, 3.8], flops=[6e14, 4e15])
    (note,) = table.notes
    assert "in 1 of 2 runs" in note


def test_optional_columns_are_nan_or_empty_where_absent_and_follow_a_selection() -> None:
    bare = RunTable.from_arrays([1e6, 2e6], [1e8, 1e8], [4.0, 3.8])
    assert np.isnan(bare.learning_rate).all()
    assert np.isnan(bare.unique_tokens).all()
    assert bare.family == ("", "")
    assert bare.metrics == {}
    full = RunTable.from_arrays(
        [1e6, 2e6, 4e6],
        [1e8, 1e8, 1e8],
        [4.0, 3.8, 3.6],
        learning_rate=[1e-3, 2e-3, 3e-3],
        unique_tokens=[1e8, 5e7, 1e8],
        steps=[10, 20, 30],
        seed=[0, 1, 2],
        family=["a", "a", "a"],
        metrics={"arc": [0.1, 0.2, 0.3]},
    )
    picked = select(full, [2, 0])
    np.testing.assert_array_equal(picked.learning_rate, [3e-3, 1e-3])
    np.testing.assert_array_equal(picked.metrics["arc"], [0.3, 0.1])
    assert picked.seed == ("2", "0")
    assert "repeated" not in " ".join(picked.notes)
    assert any("saw their data" in note for note in full.notes)


@pytest.mark.parametrize("column", ["learning_rate", "unique_tokens", "warmup_tokens", "steps"])
def test_a_negative_or_infinite_optional_figure_is_listed(column: str) -> None:
    for wrong, reason in ((-1.0, "which is negative"), (np.inf, "is infinite")):
        table = RunTable.from_arrays([1e6, 2e6], [1e8] * 2, [4.0, 3.8], **{column: [1e6, wrong]})
        assert [reason in rejected.reason for rejected in table.rejected] == [True]


def test_an_unknown_kind_or_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such run table"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(TableError, match=r"\.xlsx are not run tables"):
        read_table(tmp_path / "a.xlsx")


@given(st.lists(st.lists(st.text(max_size=6), min_size=3, max_size=3), max_size=6))
def test_any_text_in_a_row_is_either_used_or_listed(cells: list[list[str]]) -> None:
    from isoflop.laws.records import _assemble

    good = ("good", {"params": "1e6", "tokens": "1e8", "loss": "3.0"})
    rows = [("x", dict(zip(("params", "tokens", "loss"), row, strict=True))) for row in cells]
    table = _assemble([good, good, *rows, good, good], (), "table")
    assert len(table) + len(table.rejected) == len(rows) + 4
