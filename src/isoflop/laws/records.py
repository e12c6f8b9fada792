"""Tables of runs: reading CSV, JSONL, Parquet and ladder directories; not for fitting them.

A row that cannot be used is left out and listed with its reason; it is never dropped in silence.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.artifact import sha256_file
from isoflop.core.errors import TableError
from isoflop.laws.forms import Array

REQUIRED = ("params", "tokens", "loss")
OPTIONAL = ("flops", "loss_stderr", "bits_per_byte", "weight", "run_id", "seed")
KNOWN = REQUIRED + OPTIONAL
_FIGURES = ("flops", "loss_stderr", "bits_per_byte", "weight")
# Guessing uniformly over a vocabulary of 256k costs 12.45 nats a token: more is not a usable loss.
LARGEST_LOSS = 12.5
USUAL_NAMES = {
    "params": ("n", "parameters", "num_params", "n_params", "model_size"),
    "tokens": ("d", "num_tokens", "n_tokens", "tokens_seen"),
    "loss": ("final_loss", "val_loss", "eval_loss", "validation_loss", "train_loss"),
    "flops": ("c", "compute", "training_flops"),
}


@dataclass(frozen=True)
class Rejected:
    """A row that was left out."""

    where: str
    """File and line (or row number)."""
    reason: str


@dataclass(frozen=True)
class RunTable:
    """Usable runs, one per row; build it with `from_arrays` or `read_table`."""

    params: Array
    """Weights except input and position embeddings, (R,)."""
    tokens: Array
    """Training tokens seen, (R,)."""
    loss: Array
    """Final loss, nats per token (or any unit with a floor that adds up), (R,)."""
    flops: Array
    """Training FLOPs, (R,); 6·params·tokens where the table has none."""
    loss_stderr: Array
    """Standard error of each loss, (R,); NaN where unknown."""
    bits_per_byte: Array
    """The same loss per byte of text, (R,); NaN where unknown. With it the table says how many
    nats per token one bit per byte is, and so where the entropy of text lies."""
    weight: Array
    """Weight of each run in the fit, (R,)."""
    run_id: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    source: tuple[dict[str, str], ...] = ()
    """`{path, sha256}` of each file."""
    notes: tuple[str, ...] = ()
    """What looks questionable about the table; carried into the law's warnings."""

    @property
    def name(self) -> str:
        """What to call the table in a message."""
        return ", ".join(s["path"] for s in self.source) or "table"

    def __len__(self) -> int:
        return len(self.loss)

    @staticmethod
    def from_arrays(
        params: ArrayLike,
        tokens: ArrayLike,
        loss: ArrayLike,
        *,
        flops: ArrayLike | None = None,
        loss_stderr: ArrayLike | None = None,
        bits_per_byte: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        run_id: Sequence[str] | None = None,
    ) -> RunTable:
        """Make a table of R runs from arrays of shape (R,).

        Raises:
            TableError: Lengths differ, no row is usable, or the loss is not a loss in nats.
        """
        columns: dict[str, Sequence[Any]] = {
            "params": np.asarray(params, dtype=np.float64).ravel().tolist(),
            "tokens": np.asarray(tokens, dtype=np.float64).ravel().tolist(),
            "loss": np.asarray(loss, dtype=np.float64).ravel().tolist(),
        }
        given = {"flops": flops, "loss_stderr": loss_stderr, "bits_per_byte": bits_per_byte}
        for name, values in (given | {"weight": weight}).items():
            if values is not None:
                columns[name] = np.asarray(values, dtype=np.float64).ravel().tolist()
        if run_id is not None:
            columns["run_id"] = list(run_id)
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise TableError(f"the columns have different lengths: {counted}", where="table")
        rows = [
            {name: values[i] for name, values in columns.items()} for i in range(lengths["loss"])
        ]
        return _assemble([(f"row {i}", row) for i, row in enumerate(rows)], (), "table")


def read_table(
    paths: Sequence[Path | str] | Path | str, columns: Mapping[str, str] | None = None
) -> RunTable:
    """Read run tables and put their rows together.

    Args:
        paths: CSV, JSONL or Parquet files, or ladder directories (their `runs.csv` is read).
        columns: Our column name → the table's, e.g. `{"params": "N", "tokens": "D"}`.

    Raises:
        TableError: A file is missing, of an unknown kind or lacks a required column; no row is
            usable; the loss is not a loss in nats.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise TableError("no run table was given", fix="Name a CSV, JSONL or Parquet file")
    renamed = dict(columns or {})
    unknown = [name for name in renamed if name not in KNOWN]
    if unknown:
        raise TableError(
            f"{', '.join(unknown)} is no column of a run table",
            where="--columns",
            fix=f"Our names stand on the left: {', '.join(KNOWN)}",
        )
    rows: list[tuple[str, dict[str, Any]]] = []
    sources = []
    for path in map(Path, given):
        file = path / "runs.csv" if path.is_dir() else path
        if not file.is_file():
            raise TableError("no such run table", where=str(file))
        found = list(_read_rows(file))
        header = {name for _, row in found for name in row}
        _check_columns(header, renamed, file)
        rows.extend((where, _rename(row, renamed)) for where, row in found)
        sources.append({"path": str(path), "sha256": sha256_file(file)})
    return _assemble(rows, tuple(sources), ", ".join(map(str, given)))


def _read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
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
        return {"!": f"not valid JSON: {error.msg}"}
    return row if isinstance(row, dict) else {"!": "not a JSON object"}


def _rename(row: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    return row | {ours: row.get(theirs) for ours, theirs in renamed.items()}


def _check_columns(header: set[str], renamed: Mapping[str, str], file: Path) -> None:
    absent = [theirs for theirs in renamed.values() if theirs not in header]
    missing = [name for name in REQUIRED if name not in renamed and name not in header]
    if not absent and not missing:
        return
    lower = {name.lower(): name for name in header}
    guesses = []
    for name in missing:
        usual = [lower[u] for u in USUAL_NAMES[name] if u in lower]
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


def _number(value: Any) -> float:
    """A float, or NaN for an absent one; ValueError for text that is no number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    return float(value)


def _usable(row: Mapping[str, Any]) -> tuple[dict[str, float], str | None]:
    """The row's numbers and, where it cannot be used, the reason."""
    if "!" in row:
        return {}, str(row["!"])
    numbers: dict[str, float] = {}
    for name in (*REQUIRED, *_FIGURES):
        try:
            numbers[name] = _number(row.get(name))
        except (TypeError, ValueError):
            return {}, f"{name} is {row[name]!r}, not a number"
    for name in REQUIRED:
        if not math.isfinite(numbers[name]):
            missing = math.isnan(numbers[name])
            return {}, f"{name} is missing" if missing else f"{name} is infinite"
        if numbers[name] <= 0.0:
            return {}, f"{name} is {numbers[name]:g}, which is not positive"
    for name in _FIGURES:
        if numbers[name] < 0.0:
            return {}, f"{name} is {numbers[name]:g}, which is negative"
    if numbers["weight"] == 0.0:
        return {}, "its weight is 0"
    return numbers, None


def _assemble(
    rows: Sequence[tuple[str, Mapping[str, Any]]], source: tuple[dict[str, str], ...], name: str
) -> RunTable:
    kept: list[dict[str, float]] = []
    names: list[str] = []
    rejected: list[Rejected] = []
    for where, row in rows:
        numbers, reason = _usable(row)
        if reason is None:
            kept.append(numbers)
            names.append(str(row.get("run_id") or where))
        else:
            rejected.append(Rejected(where, reason))
    if not kept:
        first = f"; the first: {rejected[0].where}, {rejected[0].reason}" if rejected else ""
        raise TableError(
            f"none of the {len(rows)} rows can be used{first}",
            where=name,
            fix="Each row needs positive params, tokens and loss",
        )
    column = {key: np.array([k[key] for k in kept]) for key in kept[0]}
    table = RunTable(
        params=column["params"],
        tokens=column["tokens"],
        loss=column["loss"],
        flops=column["flops"],
        loss_stderr=column["loss_stderr"],
        bits_per_byte=column["bits_per_byte"],
        weight=np.where(np.isnan(column["weight"]), 1.0, column["weight"]),
        run_id=tuple(names),
        rejected=tuple(rejected),
        source=source,
    )
    return _question(_drop_diverged(table, name))


def _drop_diverged(table: RunTable, name: str) -> RunTable:
    """Leave out single runs worse than guessing; refuse a table made of such."""
    too_large = table.loss > LARGEST_LOSS
    if not too_large.any():
        return table
    if too_large.mean() > 0.3:
        raise TableError(
            f"the losses go up to {table.loss.max():.4g}, above the {LARGEST_LOSS} nats that "
            "guessing costs: this looks like perplexity",
            where=name,
            fix="Give the loss in nats per token: the natural logarithm of the perplexity",
        )
    rejected = tuple(
        Rejected(table.run_id[i], f"loss {table.loss[i]:.4g} is worse than guessing: diverged")
        for i in np.flatnonzero(too_large)
    )
    return select(replace(table, rejected=table.rejected + rejected), ~too_large)


def _question(table: RunTable) -> RunTable:
    """Fill in FLOPs and note what looks wrong with the units."""
    standard = 6.0 * table.params * table.tokens
    flops = np.where(np.isnan(table.flops) | (table.flops == 0.0), standard, table.flops)
    notes = []
    ratio = flops / standard
    odd = (ratio > 2.0) | (ratio < 0.5)
    if odd.any():
        notes.append(
            f"flops is not within a factor 2 of 6·params·tokens in {int(odd.sum())} of {len(ratio)}"
            f" runs (e.g. {table.run_id[int(np.argmax(odd))]}): check the units of params and "
            "tokens, or small models whose output layer and attention dominate"
        )
    return replace(table, flops=flops, notes=table.notes + tuple(notes))


def select(table: RunTable, rows: Any) -> RunTable:
    """The runs picked by a boolean mask or by indices (R',)."""
    picked = np.arange(len(table))[rows]
    return replace(
        table,
        params=table.params[picked],
        tokens=table.tokens[picked],
        loss=table.loss[picked],
        flops=table.flops[picked],
        loss_stderr=table.loss_stderr[picked],
        bits_per_byte=table.bits_per_byte[picked],
        weight=table.weight[picked],
        run_id=tuple(table.run_id[i] for i in picked),
    )
