"""Scores of tasks over scale and seeds: the table that verdicts of emergence are drawn from.

A row is an item (score 0 or 1) or a whole evaluation (score = share right, n = items). Not for
losses (`records`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.forms import Array
from isoflop.laws.reading import BROKEN, read_rows, rename
from isoflop.laws.records import Rejected

SCALES = ("flops", "params", "tokens", "step")
"""Columns that may say how large a rung is, the first that is there counts."""


@dataclass(frozen=True)
class TaskScores:
    """One task: R rungs by S seeds."""

    name: str
    scale: Array
    """(R,), increasing."""
    right: Array
    """(R, S) right answers; 0 where a seed is missing."""
    asked: Array
    """(R, S) items; 0 where a seed is missing."""
    logprob: Array | None = None
    """(R, S) mean log-probability of the right answer, nats; NaN where missing."""
    expected: Array | None = None
    """(R, S) mean probability of the right answer."""
    chance: float = 0.0
    """Share right by guessing."""

    @property
    def rungs(self) -> int:
        """How many rungs."""
        return len(self.scale)

    def places(self) -> Array:
        """(R,) places on the log axis, neighbours 1 apart on average."""
        x = np.log(self.scale / self.scale[0])
        return np.asarray(x * (len(x) - 1) / x[-1]) if len(x) > 1 else np.zeros(1)


@dataclass(frozen=True)
class ScoreTable:
    """The tasks of a table, and the rows that could not be used."""

    tasks: tuple[TaskScores, ...]
    scale: str
    """The column that says how large a rung is."""
    rejected: tuple[Rejected, ...] = ()


def read_scores(
    path: Path,
    columns: Mapping[str, str] | None = None,
    chance: Mapping[str, float] | None = None,
) -> ScoreTable:
    """Read a table of scores.

    Args:
        path: CSV, JSONL or Parquet with columns `score`, one of `flops`, `params`, `tokens`,
            `step`, and optionally `task`, `seed`, `n` (items behind a share) and `logprob`
            (log-probability of the right answer, nats; a mean where `n` is given).
        columns: Our column name → the table's.
        chance: Task → share right by guessing.

    Raises:
        TableError: The file lacks a column or has no usable row.
    """
    rows = [(where, rename(row, dict(columns or {}))) for where, row in read_rows(path)]
    present = {name for _, row in rows for name, value in row.items() if value not in (None, "")}
    scale = next((name for name in SCALES if name in present), None)
    if scale is None or "score" not in present:
        raise TableError(
            f"the table has no `score` or none of {', '.join(SCALES)}; it has "
            f"{', '.join(sorted(present)) or 'nothing'}",
            where=str(path),
            fix="Name its columns: --columns score=accuracy,flops=C",
        )
    cells: dict[str, dict[float, dict[str, list[tuple[float, float, float | None]]]]] = {}
    rejected: list[Rejected] = []
    for where, row in rows:
        try:
            at, cell = _cell(row, scale)
        except (ValueError, TypeError) as error:
            rejected.append(Rejected(where, str(row.get(BROKEN) or error)))
            continue
        task, seed = str(row.get("task") or "task"), str(row.get("seed") or "0")
        cells.setdefault(task, {}).setdefault(at, {}).setdefault(seed, []).append(cell)
    if not cells:
        raise TableError(
            f"no row can be used; the first: {rejected[0].reason}" if rejected else "no rows",
            where=str(path),
        )
    tasks = [
        _task(name, by_scale, (chance or {}).get(name, 0.0)) for name, by_scale in cells.items()
    ]
    return ScoreTable(tuple(tasks), scale, tuple(rejected))


def _cell(row: Mapping[str, Any], scale: str) -> tuple[float, tuple[float, float, float | None]]:
    at, score = float(row[scale]), float(row["score"])
    count = float(row["n"]) if row.get("n") not in (None, "") else 1.0
    if not (math.isfinite(at) and at > 0):
        raise ValueError(f"{scale} = {at:g} is no size")
    if not 0 <= score <= 1:
        raise ValueError(f"score = {score:g} is no share between 0 and 1")
    if not count >= 1:
        raise ValueError(f"n = {count:g} is no number of items")
    logprob = float(row["logprob"]) if row.get("logprob") not in (None, "") else None
    if logprob is not None and not (math.isfinite(logprob) and logprob <= 1e-6):
        raise ValueError(f"logprob = {logprob:g} is no log-probability")
    return at, (score * count, count, logprob)


def _task(
    name: str,
    by_scale: Mapping[float, Mapping[str, Sequence[tuple[float, float, float | None]]]],
    chance: float,
) -> TaskScores:
    scale = sorted(by_scale)
    seeds = sorted({seed for cells in by_scale.values() for seed in cells})
    shape = (len(scale), len(seeds))
    right, asked = np.zeros(shape), np.zeros(shape)
    logprob, expected = np.full(shape, np.nan), np.full(shape, np.nan)
    for r, at in enumerate(scale):
        for s, seed in enumerate(seeds):
            cells = by_scale[at].get(seed, ())
            right[r, s] = sum(cell[0] for cell in cells)
            asked[r, s] = sum(cell[1] for cell in cells)
            logs = [(cell[1], cell[2]) for cell in cells if cell[2] is not None]
            if logs and len(logs) == len(cells):
                total = sum(n for n, _ in logs)
                logprob[r, s] = sum(n * lp for n, lp in logs) / total
                expected[r, s] = sum(n * math.exp(lp) for n, lp in logs) / total
    whole = bool(np.isfinite(logprob[asked > 0]).all())
    # Of aggregated rows exp(mean log-probability) is no mean probability.
    single = all(cell[1] == 1 for cells in by_scale.values() for c in cells.values() for cell in c)
    return TaskScores(
        name, np.array(scale), right, asked,
        logprob if whole else None, expected if whole and single else None, chance,
    )  # fmt: skip


def seed_scatter(task: TaskScores) -> float:
    """Scatter of the seeds of a rung over that of chance, at least 1 (Pearson)."""
    total, freedom = 0.0, 0
    for right, asked in zip(task.right, task.asked, strict=True):
        there = asked > 0
        share = right[there].sum() / asked[there].sum()
        if there.sum() < 2 or not 0 < share < 1:
            continue
        expected = asked[there] * share
        total += float((((right[there] - expected) ** 2) / (expected * (1 - share))).sum())
        freedom += int(there.sum()) - 1
    return max(1.0, total / freedom) if freedom else 1.0
