"""Reading JSON lines and run tables for a report, with errors that name the line.

Not for meaning: what the values stand for is known to collect. Long metric files are folded into
few points while they are read.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.errors import ArtifactError
from isoflop.reporting.records import TrainingPoint

_REMAKE = "The file was damaged after it was written; restore it, or run its command again"
MAX_POINTS = 160
"""Points kept of a training curve: more than a chart 820 pixels wide can show apart."""


@dataclass(frozen=True)
class Metrics:
    """A metrics file, folded."""

    points: tuple[TrainingPoint, ...]
    lines: int
    not_finite: int
    """Lines whose loss is not a finite number."""
    seconds: float
    flops: float
    """Both of the last line."""
    tokens_per_step: float
    """Of the last line: tokens so far over steps so far."""
    losses: dict[float, float]
    """Step → loss, of the lines whose loss is a positive number."""


def json_lines(path: Path, note: Callable[[str], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers.

    A last line without its end, as a killed run leaves it, is left out and told to `note`.

    Raises:
        ArtifactError: The file cannot be read, or another line is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from None
    pieces = content.split(b"\n")
    for number, piece in enumerate(pieces, 1):
        if not piece.strip():
            continue
        try:
            row = json.loads(piece)
        except ValueError:
            if number == len(pieces):
                note(f"{path.name}: line {number} is unfinished and was left out")
                return
            raise ArtifactError(
                "this line is not valid JSON", where=f"{path}:{number}", fix=_REMAKE
            ) from None
        if not isinstance(row, dict):
            where = f"{path}:{number}"
            raise ArtifactError("this line is no JSON object", where=where, fix=_REMAKE)
        yield number, row


def number_at(row: dict[str, Any], key: str, where: str) -> float:
    """The number under `key`.

    Raises:
        ArtifactError: It is missing or not a number (null stands for one that is not finite).
    """
    value = row.get(key, "missing")
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        said = f"has no {key!r}" if key not in row else f"{key!r} is {value!r}, not a number"
        raise ArtifactError(said, where=where, fix=_REMAKE)
    return float(value)


def read_metrics(path: Path, note: Callable[[str], None], most: int = MAX_POINTS) -> Metrics:
    """Read `metrics.jsonl`: training loss by tokens, folded into at most `most` points.

    Raises:
        ArtifactError: A line is damaged or lacks `tokens` or `loss`.
    """
    tokens: list[float] = []
    losses: list[float] = []
    by_step: dict[float, float] = {}
    last: dict[str, Any] = {}
    for number, row in json_lines(path, note):
        where = f"{path}:{number}"
        loss = number_at(row, "loss", where)
        tokens.append(number_at(row, "tokens", where))
        losses.append(loss)
        step = row.get("step")
        if loss > 0 and isinstance(step, int | float) and math.isfinite(loss):
            by_step[float(step)] = loss
        last = row
    t, v = np.array(tokens), np.array(losses)
    usable = np.isfinite(v) & np.isfinite(t) & (t > 0)
    return Metrics(
        points=fold(t[usable], v[usable], most),
        lines=len(tokens),
        not_finite=int(np.sum(~np.isfinite(v))),
        seconds=_last(last, "seconds"),
        flops=_last(last, "flops"),
        tokens_per_step=_last(last, "tokens") / max(1.0, _last(last, "step")),
        losses=by_step,
    )


def _last(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def fold(
    tokens: np.ndarray[Any, Any], loss: np.ndarray[Any, Any], count: int = MAX_POINTS
) -> tuple[TrainingPoint, ...]:
    """Mean, least and greatest loss over equal shares of log tokens.

    Args:
        tokens: (M,), positive.
        loss: (M,), finite.
    """
    if len(tokens) == 0:
        return ()
    place = np.log(tokens)
    width = float(place.max() - place.min()) or 1.0
    bin_of = np.minimum(((place - place.min()) / width * count).astype(int), count - 1)
    order = np.argsort(bin_of, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(bin_of[order]) > 0])
    sizes = np.diff(np.r_[starts, len(order)])
    t, v = tokens[order], loss[order]
    columns = (
        np.exp(np.add.reduceat(np.log(t), starts) / sizes),
        np.add.reduceat(v, starts) / sizes,
        np.minimum.reduceat(v, starts),
        np.maximum.reduceat(v, starts),
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(TrainingPoint(*values) for values in rows)


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV run table with their line numbers.

    Raises:
        ArtifactError: The file cannot be read or a row has more or fewer fields than the header.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="\0", strict=True)
            for row in reader:
                if "" in row or "\0" in row.values():
                    raise ArtifactError(
                        "this row has not as many fields as the header",
                        where=f"{path}:{reader.line_num}",
                        fix=_REMAKE,
                    )
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"cannot be read: {error}", where=str(path)) from None
