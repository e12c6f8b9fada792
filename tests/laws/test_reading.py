"""Rows from files: kinds, broken lines, and columns under other names."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from isoflop.core.errors import TableError
from isoflop.laws import read_table
from isoflop.laws.reading import BROKEN, check_columns, read_rows, rename


def test_every_line_of_a_file_is_a_row_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"params": 1}\n\n[2]\nnot json\n')
    rows = list(read_rows(path))
    assert [place for place, _ in rows] == [f"{path}:{n}" for n in (1, 3, 4)]
    assert rows[0][1] == {"params": 1}
    assert all(BROKEN in row for _, row in rows[1:])


def test_a_spreadsheet_with_a_byte_order_mark_keeps_its_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfparams,tokens\n1,2\n")
    assert next(read_rows(path))[1] == {"params": "1", "tokens": "2"}


def test_renaming_adds_our_names_beside_the_others() -> None:
    assert rename({"N": 1}, {"params": "N"}) == {"N": 1, "params": 1}


def test_every_missing_column_is_named_with_a_guess() -> None:
    with pytest.raises(TableError, match="params=model_size"):
        check_columns({"model_size", "tokens", "loss"}, {}, ("params", "tokens"), Path("a.csv"))


def test_metrics_and_all_optional_columns_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("N,D,l,metric:arc,code,lr,U,kind\n1e6,1e8,4,0.3,2.5,1e-3,5e7,dense\n")
    names = {"params": "N", "tokens": "D", "loss": "l", "metric:code": "code"}
    more = {"learning_rate": "lr", "unique_tokens": "U", "family": "kind"}
    table = read_table(path, names | more)
    assert table.metrics["arc"][0] == 0.3
    assert table.metrics["code"][0] == 2.5
    assert (table.learning_rate[0], table.unique_tokens[0]) == (1e-3, 5e7)
    assert table.family == ("dense",)
    assert table.schedule == ("",)


def test_packed_files_are_read_and_broken_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"params,tokens\n1,2\n"))
    assert list(read_rows(path)) == [(f"{path}:2", {"params": "1", "tokens": "2"})]
    path.write_bytes(b"params,tokens\n1,2\n")
    with pytest.raises(TableError, match="cannot be unpacked"):
        list(read_rows(path))
    with pytest.raises(TableError, match=r"\.txt are not run tables"):
        list(read_rows(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("name", "nats"),
    [
        ("Perplexity", "natural logarithm"),
        ("val_ppl", "natural logarithm"),
        ("bits_per_token", "it × 0.6931"),
        ("BPB", "bytes per token"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_loss_in_another_unit_is_refused_with_its_conversion(
    name: str, nats: str, mapped: bool
) -> None:
    renamed = {"loss": name} if mapped else {}
    with pytest.raises(TableError, match=nats):
        check_columns({"params", "tokens", name}, renamed, ("params", "tokens", "loss"), Path("a"))


def test_a_perplexity_beside_the_loss_disturbs_nothing() -> None:
    required = ("params", "tokens", "loss")
    check_columns({*required, "ppl", "bits_per_byte"}, {}, required, Path("a.csv"))
    check_columns({"params", "tokens", "l", "ppl"}, {"loss": "l"}, required, Path("a.csv"))


def test_headings_in_words_are_guessed() -> None:
    header = {"Model Size", "Training Tokens", "Val loss"}
    with pytest.raises(TableError) as refused:
        check_columns(header, {}, ("params", "tokens", "loss"), Path("a.csv"))
    whole = '--columns "params=Model Size,tokens=Training Tokens,loss=Val loss"'
    assert whole in str(refused.value)


def test_tokens_that_the_compute_gives_are_asked_for_by_their_formula() -> None:
    with pytest.raises(TableError, match=r"flops / \(6 × params\)"):
        check_columns({"params", "flops", "loss"}, {}, ("params", "tokens", "loss"), Path("a"))


def test_sizes_in_millions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("params,tokens,loss\n10,2e8,4\n300,6e9,3\n")
    with pytest.raises(TableError, match=r"params goes from 10 to 300.*millions"):
        read_table(path)
