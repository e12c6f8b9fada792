"""Tables of curves, of figures by setting, and of mixtures; not for run tables (records).

A row that cannot be used is left out and listed with its reason, as in a run table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop.core.artifact import sha256_file
from isoflop.core.errors import TableError
from isoflop.laws.forms import Array
from isoflop.laws.reading import BROKEN, check_columns, read_rows, rename
from isoflop.laws.records import Rejected

if TYPE_CHECKING:
    from isoflop.laws.curve_fit import Curve

SCORE = "score"
WEIGHT, LOSS = "weight:", "loss:"
"""How the columns of a table of mixtures begin."""


@dataclass(frozen=True)
class CurveTable:
    """Loss curves of one model, each with its schedule."""

    curves: tuple[Curve, ...]
    rejected: tuple[Rejected, ...] = ()
    source: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class FigureTable:
    """Columns of numbers, (R,) each, by our names."""

    figures: dict[str, Array]
    rejected: tuple[Rejected, ...] = ()
    source: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class MixtureTable:
    """Mixtures and what they gave: R runs, J training domains, I validation domains."""

    weights: Array
    """(R, J): shares of the training domains."""
    losses: Array
    """(R, I): nats per token."""
    training: tuple[str, ...]
    validation: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    source: tuple[dict[str, str], ...] = ()


def read_figures(
    paths: Sequence[Path | str],
    required: Sequence[str],
    optional: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> FigureTable:
    """Read columns of numbers; an optional column is there if all files have it.

    Args:
        paths: CSV, JSONL or Parquet files, or ladder directories (their `runs.csv`).
        required: Columns that must be there. All figures must be positive, a `score` only finite.
        optional: Columns to read where they are.
        columns: Our column name → the table's.

    Raises:
        TableError: A file is missing or lacks a column, or no row is usable.
    """
    renamed = _checked(columns, (*required, *optional))
    rows, source = _read(paths, renamed, required)
    names = [*required, *(n for n in optional if all(row.get(n) is not None for _, row in rows))]
    kept, rejected = _numbers(rows, names)
    figures = {name: np.array([row[name] for row, _, _ in kept]) for name in names}
    return FigureTable(figures, rejected, source)


def read_curves(
    paths: Sequence[Path | str],
    columns: Mapping[str, str] | None = None,
    warmup_steps: float = 0.0,
) -> CurveTable:
    """Read loss curves: a row is a logged step, with columns step, learning_rate, loss.

    Rows are told apart by `run_id` and by file. A run directory's metrics and the runs of a ladder
    of one size are read as they are.

    Args:
        paths: CSV, JSONL or Parquet files, run directories, ladder directories.
        columns: Our column name → the table's.
        warmup_steps: Length of the warm-up where the table begins after it.

    Raises:
        TableError: A file is missing or lacks a column, a curve cannot be one, or a ladder has
            several sizes.
        ArtifactError: A run's metrics are damaged.
    """
    renamed = _checked(columns, ("step", "learning_rate", "loss", "run_id"))
    curves: list[Curve] = []
    files: list[Path] = []
    for path in map(Path, paths):
        if (path / "runs.csv").is_file():
            curves += _ladder_curves(path)
        elif path.is_dir():
            files.append(path / "metrics.jsonl")
        else:
            files.append(path)
    source = tuple(_source(p) for p in map(Path, paths) if (p / "runs.csv").is_file())
    rejected: list[Rejected] = []
    for file in files:
        own = {"learning_rate": "lr"} if file.name == "metrics.jsonl" and not renamed else renamed
        rows, read_from = _read([file], own, ("step", "learning_rate", "loss"))
        source += read_from
        kept, left_out = _numbers(
            rows, ("step", "learning_rate", "loss"), ("step", "learning_rate")
        )
        rejected += left_out
        by_run: dict[str, list[tuple[float, float, float]]] = {}
        for figures, row, _ in kept:
            name = str(row.get("run_id") or _stem(file))
            by_run.setdefault(name, []).append(
                (figures["step"], figures["learning_rate"], figures["loss"])
            )
        for name, points in by_run.items():
            curves.append(_curve(name, points, warmup_steps, f"{file}, {name}"))
    if not curves:
        raise TableError("no curve was given", fix="Name files of curves, or run directories")
    return CurveTable(tuple(curves), tuple(rejected), source)


def read_mixtures(
    paths: Sequence[Path | str], columns: Mapping[str, str] | None = None
) -> MixtureTable:
    """Read mixtures: `weight:NAME` is a training domain's share, `loss:NAME` a domain's loss.

    Raises:
        TableError: A file is missing, there are no such columns, or no row is usable.
    """
    renamed = dict(columns or {})
    wrong = [name for name in renamed if not name.startswith((WEIGHT, LOSS))]
    if wrong:
        raise TableError(
            f"{', '.join(wrong)} is no column of a table of mixtures",
            where="--columns",
            fix=f"Our names stand on the left: {WEIGHT}NAME, {LOSS}NAME",
        )
    rows, source = _read(paths, renamed, ())
    header = list(dict.fromkeys(name for _, row in rows for name in row))
    found = {
        mark: [name for name in header if isinstance(name, str) and name.startswith(mark)]
        for mark in (WEIGHT, LOSS)
    }
    if len(found[WEIGHT]) < 2 or not found[LOSS]:
        raise TableError(
            f"the table has {len(found[WEIGHT])} columns {WEIGHT}NAME and {len(found[LOSS])} "
            f"columns {LOSS}NAME",
            where=", ".join(map(str, paths)),
            fix="A table of mixtures has the shares of two or more training domains and the loss "
            f"of each validation domain; map them with --columns {WEIGHT}web=w_web,{LOSS}code=code",
        )
    names = (*found[WEIGHT], *found[LOSS])
    kept, rejected = _numbers(rows, names, found[WEIGHT])
    weights, losses = (
        np.array([[row[name] for name in found[mark]] for row, _, _ in kept])
        for mark in (WEIGHT, LOSS)
    )
    return MixtureTable(
        *(weights, losses),
        tuple(name.removeprefix(WEIGHT) for name in found[WEIGHT]),
        tuple(name.removeprefix(LOSS) for name in found[LOSS]),
        *(rejected, source),
    )


def _checked(columns: Mapping[str, str] | None, known: Sequence[str]) -> dict[str, str]:
    renamed = dict(columns or {})
    unknown = [name for name in renamed if name not in known]
    if unknown:
        raise TableError(
            f"{', '.join(unknown)} is no column that this form reads",
            where="--columns",
            fix=f"Our names stand on the left: {', '.join(known)}",
        )
    return renamed


def _read(
    paths: Sequence[Path | str], renamed: Mapping[str, str], required: Sequence[str]
) -> tuple[list[tuple[str, dict[str, Any]]], tuple[dict[str, str], ...]]:
    if not paths:
        raise TableError("no table was given", fix="Name a CSV, JSONL or Parquet file")
    rows: list[tuple[str, dict[str, Any]]] = []
    for path in map(Path, paths):
        file = path / "runs.csv" if path.is_dir() else path
        if not file.is_file():
            raise TableError("no such table", where=str(file))
        found = list(read_rows(file))
        check_columns({name for _, row in found for name in row}, renamed, required, file)
        rows.extend((where, rename(row, renamed)) for where, row in found)
    return rows, tuple(_source(Path(path)) for path in paths)


def _source(path: Path) -> dict[str, str]:
    file = path / "runs.csv" if path.is_dir() else path
    return {"path": str(path), "sha256": sha256_file(file)}


def _numbers(
    rows: Sequence[tuple[str, dict[str, Any]]],
    names: Iterable[str],
    zero_allowed: Sequence[str] = (),
) -> tuple[list[tuple[dict[str, float], dict[str, Any], str]], tuple[Rejected, ...]]:
    """The usable rows as numbers, with the whole row and its place; and those left out."""
    kept: list[tuple[dict[str, float], dict[str, Any], str]] = []
    rejected = []
    wanted = tuple(names)
    for where, row in rows:
        found, reason = {}, str(row[BROKEN]) if BROKEN in row else None
        for name in wanted if reason is None else ():
            found[name], reason = _number(name, row.get(name), zero_allowed)
            if reason is not None:
                break
        if reason is None:
            kept.append((found, row, where))
        else:
            rejected.append(Rejected(where, reason))
    if not kept:
        first = f"; the first: {rejected[0].where}, {rejected[0].reason}" if rejected else ""
        raise TableError(
            f"none of the {len(rows)} rows can be used{first}",
            where=rows[0][0].rpartition(":")[0] if rows else "table",
            fix=f"Each row needs {', '.join(wanted)}",
        )
    return kept, tuple(rejected)


def _number(name: str, value: Any, zero_allowed: Sequence[str]) -> tuple[float, str | None]:
    """The value and, where it cannot be used, the reason."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan, f"{name} is missing"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan, f"{name} is {value!r}, not a number"
    if not math.isfinite(number):
        return number, f"{name} is {number:g}"
    if name != SCORE and (number < 0.0 or (number == 0.0 and name not in zero_allowed)):
        return number, f"{name} is {number:g}, which is not positive"
    return number, None


def _curve(
    name: str, points: list[tuple[float, float, float]], warmup_steps: float, where: str
) -> Curve:
    """The curve of points (step, learning rate, loss) in any order."""
    from isoflop.laws.curve_fit import Curve
    from isoflop.laws.schedule_terms import Schedule

    step, rate, loss = np.array(sorted(points)).T
    again = step[1:][np.diff(step) == 0.0]
    if len(again):
        raise TableError(
            f"step {again[0]:g} is there twice",
            where=where,
            fix="Tell the runs apart by a column run_id",
        )
    try:
        return Curve(name, step, loss, Schedule(step, rate, warmup_steps))
    except TableError as error:
        raise TableError(error.what, where=where, fix=error.fix) from None


def _ladder_curves(ladder: Path) -> list[Curve]:
    from isoflop.laws import collapse

    runs = collapse.read_curves(ladder)
    sizes = sorted({run.params for run in runs})
    if len(sizes) > 1:
        raise TableError(
            f"the ladder has {len(sizes)} sizes; a curve law is of one model",
            where=str(ladder),
            fix=f"Give run directories of one size, such as {ladder / 'runs' / runs[0].run_id}",
        )
    return [run.curve for run in runs]


def _stem(file: Path) -> str:
    return file.parent.name if file.name == "metrics.jsonl" else file.stem
