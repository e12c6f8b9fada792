"""Rows of run tables from CSV, JSONL and Parquet files; not for judging what the rows hold."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from isoflop.core.errors import TableError

BROKEN = "!"
"""Key of the reason in a row that could not even be parsed."""
USUAL_NAMES = {
    "params": ("n", "parameters", "num_params", "n_params", "model_size"),
    "tokens": ("d", "num_tokens", "n_tokens", "tokens_seen"),
    "loss": ("final_loss", "val_loss", "eval_loss", "validation_loss", "train_loss"),
    "learning_rate": ("lr", "peak_lr", "max_lr"),
    "step": ("steps", "iteration", "iter"),
    "experts": ("n_experts", "num_experts"),
    "bits": ("precision",),
    "added_loss": ("delta_loss", "delta"),
}


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row as its place (file and line) and its cells by column name.

    Raises:
        TableError: The file is of an unknown kind.
    """
    kind = file.suffix.lower()
    if kind == ".csv":
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            for row in reader:
                yield f"{file}:{reader.line_num}", {k: v for k, v in row.items() if k is not None}
    elif kind in (".jsonl", ".ndjson"):
        with open(file, encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield f"{file}:{number}", _parse_json_row(line)
    elif kind == ".parquet":
        import pyarrow.parquet  # only tables in Parquet pay for the import

        for number, row in enumerate(pyarrow.parquet.read_table(file).to_pylist()):
            yield f"{file} row {number}", dict(row)
    else:
        raise TableError(
            f"files ending in {kind or 'nothing'} are not run tables",
            where=str(file),
            fix="Give a .csv, .jsonl or .parquet file, or a ladder directory",
        )


def _parse_json_row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return {BROKEN: f"not valid JSON: {error.msg}"}
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
            not there.
    """
    if not header:
        raise TableError("the table has no rows", where=str(file))
    absent = [theirs for theirs in renamed.values() if theirs not in header]
    missing = [name for name in required if name not in renamed and name not in header]
    if not absent and not missing:
        return
    lower = {name.lower(): name for name in header}
    guesses = []
    for name in missing:
        usual = [lower[u] for u in USUAL_NAMES.get(name, ()) if u in lower]
        close = usual or get_close_matches(name, sorted(header), n=1, cutoff=0.6)
        if close:
            guesses.append(f"{name}={close[0]}")
    says = f"the table has no column {', '.join(absent + missing)}"
    hint = f"Map it with --columns {','.join(guesses)}" if guesses else "Map it with --columns"
    raise TableError(
        f"{says} (it has {', '.join(sorted(h for h in header if h != '!')[:12]) or 'no columns'})",
        where=str(file),
        fix=hint if missing else "Check the names on the right of --columns",
    )
