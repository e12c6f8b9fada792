"""Tables of runs: what a row means, which rows are usable; not for reading files or fitting.

A row that cannot be used is left out and listed with its reason; it is never dropped in silence.
What is merely odd stays in and becomes a note (`quality`), which a law carries as a warning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.artifact import sha256_file
from isoflop.core.errors import TableError
from isoflop.laws.forms import Array
from isoflop.laws.quality import questions
from isoflop.laws.reading import BROKEN, check_columns, read_rows, rename

REQUIRED = ("params", "tokens", "loss")
FIGURES = (
    *("flops", "loss_stderr", "bits_per_byte", "weight", "params_total", "learning_rate"),
    *("batch_tokens", "unique_tokens", "steps", "warmup_tokens"),
)
WORDS = ("run_id", "seed", "schedule", "family")
METRIC = "metric:"
KNOWN = (*REQUIRED, *FIGURES, *WORDS)
# Guessing uniformly over a vocabulary of 256k costs 12.45 nats a token: more is not a usable loss.
LARGEST_LOSS = 12.5
FEWEST_PARAMS = 1e3
FEWEST_TOKENS = 1e4
"""A file whose largest run is smaller counts in millions or billions."""


@dataclass(frozen=True)
class Rejected:
    """A row that was left out."""

    where: str
    """File and line (or row number)."""
    reason: str


@dataclass(frozen=True)
class RunTable:
    """Usable runs, one per row; build it with `from_arrays` or `read_table`.

    R is the number of runs. An optional figure is NaN, an optional word empty, where absent.
    """

    params: Array
    """Weights except input and position embeddings, (R,)."""
    tokens: Array
    """Training tokens seen, (R,)."""
    loss: Array
    """Final loss, nats per token (or any unit with a floor that adds up), (R,)."""
    flops: Array
    """Training FLOPs, (R,); 6·params·tokens where the table has none."""
    loss_stderr: Array
    """Standard error of each loss, (R,)."""
    bits_per_byte: Array
    """The same loss per byte of text, (R,). With it the table says how many nats per token one bit
    per byte is, and so where the entropy of text lies."""
    weight: Array
    """Weight of each run in the fit, (R,)."""
    params_total: Array
    """All weights, embeddings included, (R,)."""
    learning_rate: Array
    """Peak learning rate, (R,)."""
    batch_tokens: Array
    """Tokens per optimizer step, (R,)."""
    unique_tokens: Array
    """Tokens of the corpus; fewer than `tokens` where data were repeated, (R,)."""
    steps: Array
    """Optimizer steps, (R,)."""
    warmup_tokens: Array
    """Tokens before the learning rate reached its peak, (R,)."""
    run_id: tuple[str, ...]
    seed: tuple[str, ...]
    schedule: tuple[str, ...]
    family: tuple[str, ...]
    metrics: dict[str, Array] = field(default_factory=dict)
    """The `metric:*` columns by the name behind the colon, (R,) each."""
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
        params_total: ArrayLike | None = None,
        learning_rate: ArrayLike | None = None,
        batch_tokens: ArrayLike | None = None,
        unique_tokens: ArrayLike | None = None,
        steps: ArrayLike | None = None,
        warmup_tokens: ArrayLike | None = None,
        run_id: Sequence[str] | None = None,
        seed: Sequence[str | int] | None = None,
        schedule: Sequence[str] | None = None,
        family: Sequence[str] | None = None,
        metrics: Mapping[str, ArrayLike] | None = None,
    ) -> RunTable:
        """Make a table of R runs from arrays of shape (R,).

        Raises:
            TableError: Lengths differ, no row is usable, or the loss is not a loss in nats.
        """
        figures: dict[str, ArrayLike | None] = {
            "params": params,
            "tokens": tokens,
            "loss": loss,
            "flops": flops,
            "loss_stderr": loss_stderr,
            "bits_per_byte": bits_per_byte,
            "weight": weight,
            "params_total": params_total,
            "learning_rate": learning_rate,
            "batch_tokens": batch_tokens,
            "unique_tokens": unique_tokens,
            "steps": steps,
            "warmup_tokens": warmup_tokens,
            **{METRIC + name: values for name, values in (metrics or {}).items()},
        }
        words: dict[str, Sequence[str | int] | None] = {
            "run_id": run_id,
            "seed": seed,
            "schedule": schedule,
            "family": family,
        }
        columns: dict[str, Sequence[Any]] = {
            name: np.asarray(values, dtype=np.float64).ravel().tolist()
            for name, values in figures.items()
            if values is not None
        } | {name: list(values) for name, values in words.items() if values is not None}
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
        columns: Our column name → the table's, e.g. `{"params": "N", "metric:c4": "loss_c4"}`.

    Raises:
        TableError: A file is missing, of an unknown kind or lacks a required column; no row is
            usable; the loss is not a loss in nats.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise TableError("no run table was given", fix="Name a CSV, JSONL or Parquet file")
    renamed = dict(columns or {})
    unknown = [name for name in renamed if name not in KNOWN and not name.startswith(METRIC)]
    if unknown:
        raise TableError(
            f"{', '.join(unknown)} is no column of a run table",
            where="--columns",
            fix=f"Our names stand on the left: {', '.join(KNOWN)}, {METRIC}NAME",
        )
    rows: list[tuple[str, dict[str, Any]]] = []
    sources = []
    for path in map(Path, given):
        file = path / "runs.csv" if path.is_dir() else path
        if not file.is_file():
            raise TableError("no such run table", where=str(file))
        found = list(read_rows(file))
        header = {name for _, row in found for name in row}
        check_columns(header, renamed, REQUIRED, file)
        rows.extend((where, rename(row, renamed)) for where, row in found)
        sources.append({"path": str(path), "sha256": sha256_file(file)})
    table = _assemble(rows, tuple(sources), ", ".join(map(str, given)))
    if not any(Path(path).is_dir() for path in given):  # a ladder's own table counts in ones
        _refuse_shortened(table, ", ".join(map(str, given)))
    return table


def _refuse_shortened(table: RunTable, name: str) -> None:
    """Refuse sizes in millions and tokens in billions: forecasts are asked for in ones."""
    for column, values, least in (
        ("params", table.params, FEWEST_PARAMS),
        ("tokens", table.tokens, FEWEST_TOKENS),
    ):
        if values.max() < least:
            raise TableError(
                f"{column} goes from {values.min():g} to {values.max():g}, too few for a language "
                "model: this looks like millions or billions",
                where=name,
                fix=f"Give the number itself, as 1.5e9 for 1.5 billion {column}",
            )


def select(table: RunTable, rows: Any) -> RunTable:
    """The runs picked by a boolean mask or by indices (R',), questioned anew."""
    picked = np.arange(len(table))[rows]
    changes: dict[str, Any] = {
        "metrics": {name: values[picked] for name, values in table.metrics.items()}
    }
    for column in fields(table):
        values = getattr(table, column.name)
        if isinstance(values, np.ndarray):
            changes[column.name] = values[picked]
        elif column.name in WORDS:
            changes[column.name] = tuple(values[i] for i in picked)
    return _questioned(replace(table, **changes))


def _questioned(table: RunTable) -> RunTable:
    return replace(table, notes=tuple(question.text for question in questions(table)))


def _number(value: Any) -> float:
    """A float, or NaN for an absent one; ValueError for text that is no number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    return float(value)


def _usable(row: Mapping[str, Any]) -> tuple[dict[str, float], str | None]:
    """The row's numbers and, where it cannot be used, the reason."""
    if BROKEN in row:
        return {}, str(row[BROKEN])
    numbers: dict[str, float] = {}
    metrics = [name for name in row if isinstance(name, str) and name.startswith(METRIC)]
    for name in (*REQUIRED, *FIGURES, *metrics):
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
    for name in FIGURES:
        if numbers[name] < 0.0:
            return {}, f"{name} is {numbers[name]:g}, which is negative"
        if math.isinf(numbers[name]):
            return {}, f"{name} is infinite"
    if numbers["weight"] == 0.0:
        return {}, "its weight is 0"
    return numbers, None


def _assemble(
    rows: Sequence[tuple[str, Mapping[str, Any]]], source: tuple[dict[str, str], ...], name: str
) -> RunTable:
    kept: list[dict[str, float]] = []
    words: list[dict[str, str]] = []
    rejected: list[Rejected] = []
    for where, row in rows:
        numbers, reason = _usable(row)
        if reason is None:
            kept.append(numbers)
            words.append({w: _word(row.get(w)) for w in WORDS} | {"where": where})
        else:
            rejected.append(Rejected(where, reason))
    if not kept:
        first = f"; the first: {rejected[0].where}, {rejected[0].reason}" if rejected else ""
        raise TableError(
            f"none of the {len(rows)} rows can be used{first}",
            where=name,
            fix="Each row needs positive params, tokens and loss",
        )
    column = {
        key: np.array([k.get(key, math.nan) for k in kept])
        for key in dict.fromkeys(key for k in kept for key in k)
    }
    standard = 6.0 * column["params"] * column["tokens"]
    absent = np.isnan(column["flops"]) | (column["flops"] == 0.0)
    column["flops"] = np.where(absent, standard, column["flops"])
    column["weight"] = np.where(np.isnan(column["weight"]), 1.0, column["weight"])
    figures: dict[str, Any] = {key: column[key] for key in (*REQUIRED, *FIGURES)}
    table = RunTable(
        **figures,
        run_id=tuple(w["run_id"] or w["where"] for w in words),
        seed=tuple(w["seed"] for w in words),
        schedule=tuple(w["schedule"] for w in words),
        family=tuple(w["family"] for w in words),
        metrics={key.removeprefix(METRIC): column[key] for key in column if key.startswith(METRIC)},
        rejected=tuple(rejected),
        source=source,
    )
    return _drop_diverged(_questioned(table), name)


def _word(value: Any) -> str:
    return "" if value is None else str(value)


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
