"""Rows of run tables from CSV, JSONL and Parquet files; not for judging what the rows hold."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from isoflop.core.errors import TableError

BROKEN = "!"
"""Key of the reason in a row that could not even be parsed."""
USUAL_NAMES = {
    "params": ("n", "parameters", "num_params", "n_params", "model_size", "size"),
    "tokens": ("d", "num_tokens", "n_tokens", "tokens_seen", "training_tokens", "train_tokens"),
    "loss": ("final_loss", "val_loss", "eval_loss", "validation_loss", "train_loss"),
    "learning_rate": ("lr", "peak_lr", "max_lr"),
    "step": ("steps", "iteration", "iter"),
    "experts": ("n_experts", "num_experts"),
    "bits": ("precision",),
    "added_loss": ("delta_loss", "delta"),
}
OTHER_UNITS = (
    (re.compile(r"perplexity|(^|_)ppl(_|$)"), "its natural logarithm"),
    (re.compile(r"bits?_per_(byte|char)|(^|_)bp[bc](_|$)"), "it × 0.6931 × bytes per token"),
    (re.compile(r"bits?_per_token|(^|_)bits(_|$)"), "it × 0.6931"),
)
"""Names of columns that hold a loss in another unit, and what it is in nats per token."""


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row as its place (file and line) and its cells by column name.

    Raises:
        TableError: The file is of an unknown kind.
    """
    packed = file.suffix.lower() == ".gz"
    kind = (file.with_suffix("") if packed else file).suffix.lower()
    if kind in (".csv", ".jsonl", ".ndjson"):
        try:
            with _open(file, packed) as handle:
                yield from _csv_rows(file, handle) if kind == ".csv" else _json_rows(file, handle)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TableError(f"the file cannot be unpacked: {error}", where=str(file)) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise TableError(
                f"this is no text in UTF-8 with cells and lines: {error}",
                where=str(file),
                fix="Write the table as UTF-8, or restore the file from a copy",
            ) from None
    elif kind == ".parquet" and not packed:
        for number, row in enumerate(_parquet_rows(file)):
            yield f"{file} row {number}", dict(row)
    else:
        raise TableError(
            f"files ending in {''.join(file.suffixes[-2:]) or 'nothing'} are not run tables",
            where=str(file),
            fix="Give a .csv or .jsonl file (.gz too), a .parquet file, or a ladder directory",
        )


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    import pyarrow  # only tables in Parquet pay for the import
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise TableError(
            f"the Parquet file cannot be read: {error}",
            where=str(file),
            fix="Restore the file from a copy, or write it again",
        ) from None
    return rows


def _open(file: Path, packed: bool) -> TextIO:
    if packed:
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return open(file, encoding="utf-8-sig", newline="")


def _csv_rows(file: Path, handle: TextIO) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(handle)
    for row in reader:
        yield f"{file}:{reader.line_num}", {k: v for k, v in row.items() if k is not None}


def _json_rows(file: Path, handle: TextIO) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(handle, 1):
        if line.strip():
            yield f"{file}:{number}", _parse_json_row(line)


def _parse_json_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return {BROKEN: f"not valid JSON: {error.msg}"}
    except (ValueError, RecursionError):  # a number of too many digits, brackets without end
        return {BROKEN: "not JSON that can be read"}
    return row if isinstance(row, dict) else {BROKEN: "not a JSON object"}


def rename(row: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The row with our column names beside the table's own."""
    return row | {ours: row.get(theirs) for ours, theirs in renamed.items()}


def check_columns(
    header: set[str], renamed: Mapping[str, str], required: Sequence[str], file: Path
) -> None:
    """Refuse a table that lacks a required column, with a proposal for `--columns`.

    Raises:
        TableError: There are no rows; a required column, or one on the right of `--columns`, is
            not there, or is a loss in another unit.
    """
    if not header:
        raise TableError("the table has no rows", where=str(file))
    absent = [theirs for theirs in renamed.values() if theirs not in header]
    missing = [name for name in required if name not in renamed and name not in header]
    if not absent and "loss" in (*missing, *renamed):
        _refuse_other_units([renamed["loss"]] if "loss" in renamed else sorted(header), file)
    if not absent and not missing:
        return
    lower = {_plain(name): name for name in header}
    guesses = []
    for name in missing:
        usual = [lower[u] for u in USUAL_NAMES.get(name, ()) if u in lower]
        close = usual or get_close_matches(name, sorted(header), n=1, cutoff=0.6)
        if close:
            guesses.append(f"{name}={close[0]}")
    says = f"the table has no column {', '.join(absent + missing)}"
    mapping = ",".join(guesses)
    quoted = f'"{mapping}"' if " " in mapping else mapping
    hint = f"Map it with --columns {quoted}".rstrip()
    if "tokens" in missing and "flops" in header:
        hint += ", or add it: flops / (6 × params)"
    raise TableError(
        f"{says} (it has {', '.join(sorted(h for h in header if h != '!')[:12]) or 'no columns'})",
        where=str(file),
        fix=hint if missing else "Check the names on the right of --columns",
    )


def _plain(name: str) -> str:
    """The name in small letters, its words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _refuse_other_units(names: Sequence[str], file: Path) -> None:
    """Refuse a table whose loss would come from one of the columns if it is in another unit."""
    if any(_plain(name) in USUAL_NAMES["loss"] for name in names):
        return
    for name in names:
        for pattern, nats in OTHER_UNITS:
            if pattern.search(_plain(name)):
                raise TableError(
                    f"the column {name} is no loss in nats per token",
                    where=str(file),
                    fix=f"Add a column loss: {nats}",
                )
