"""What a task is and what becomes of one: records of items, and their score with its interval.

Not for any task's own items (`tasks/`), nor for writing results (`results.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from isoflop.core.errors import RecipeError
from isoflop.evaluation import statistics
from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.statistics import Estimate

POINTS = 0.03
"""The difference that `items_for_3_points` is about."""


@dataclass(frozen=True)
class Settings:
    """What a task may be told."""

    path: Path | None = None
    """The file or directory of its items, where it takes one."""
    limit: int | None = None
    """Most items of each group; the task's own number when None."""
    seed: int = 0
    """Draws the generated items."""
    encoder: Path | None = None
    """An encoder's directory, for BERTScore."""


@dataclass(frozen=True)
class Record:
    """One item, asked."""

    id: str
    score: float
    """Its part of the score: 1 or 0 for right or wrong, bits of a text."""
    weight: float = 1.0
    """What the scores are divided by in sum: bytes, for bits per byte."""
    cluster: str | None = None
    """Items of one cluster (questions on one passage) are not independent."""
    groups: tuple[str, ...] = ()
    """Parts of the task that are scored on their own too: `en`, `k=4`."""
    counts: bool = True
    """Whether it is in the task's own score: controls are not."""
    detail: dict[str, Any] = field(default_factory=dict)
    """The rest of what is kept: options with their log-probabilities, texts written."""


@dataclass(frozen=True)
class Scored:
    """The score of a task or of a part of one."""

    score: float
    low: float | None
    """None where nothing tells the interval: a single document."""
    high: float | None
    chance: float | None
    """What guessing scores; None where there is no guessing."""
    n: int
    metric: str
    higher_is_better: bool
    standing: Literal["above", "at", "below"] | None
    """Against chance, by the interval. A score at chance is not ranked."""
    items_for_3_points: int | None
    """Items that two models need to be seen 3 points apart, where scores are right or wrong."""


@dataclass(frozen=True)
class Outcome:
    """A task, done."""

    metric: str
    records: tuple[Record, ...]
    chance: float | None = None
    higher_is_better: bool = True
    extra: dict[str, Any] = field(default_factory=dict)
    """Further figures: losses, other ways to count, what was dropped."""


@dataclass(frozen=True)
class Task:
    """One entry of the registry."""

    name: str
    about: str
    """One line for `isoflop eval --list`."""
    run: Callable[[Subject, Settings], Outcome] = field(repr=False)
    takes: Literal["no file", "may take a file", "needs a file"] = "no file"

    def check(self, settings: Settings) -> None:
        """Refuse a file that is missing or not wanted.

        Raises:
            RecipeError: It is so.
        """
        if self.takes == "needs a file" and settings.path is None:
            raise RecipeError(
                f"`{self.name}` has no items of its own", where="--tasks",
                fix=f"Write `--tasks {self.name}=PATH`",
            )  # fmt: skip
        if self.takes == "no file" and settings.path is not None:
            raise RecipeError(
                f"`{self.name}` takes no file", where="--tasks", fix=f"Write `{self.name}` alone"
            )


def score_records(records: Sequence[Record], outcome: Outcome) -> Scored:
    """Score some of an outcome's records.

    Right or wrong items that are independent get Wilson's interval; all others one by
    linearisation, over clusters where there are any.

    Raises:
        DataError: There are no records.
    """
    scores, weights = [r.score for r in records], [r.weight for r in records]
    binary = all(s in (0, 1) for s in scores) and all(w == 1 for w in weights)
    clustered = any(r.cluster is not None for r in records)
    if binary and not clustered:
        estimate = statistics.wilson(int(sum(scores)), len(scores))
    else:
        clusters = [r.id if r.cluster is None else f"cluster {r.cluster}" for r in records]
        estimate = statistics.ratio(scores, weights, clusters)
    return Scored(
        score=estimate.value,
        low=_finite(estimate.low),
        high=_finite(estimate.high),
        chance=outcome.chance,
        n=len(records),
        metric=outcome.metric,
        higher_is_better=outcome.higher_is_better,
        standing=_standing(estimate, outcome.chance),
        items_for_3_points=statistics.items_to_see(POINTS, estimate.value) if binary else None,
    )


def by_group(outcome: Outcome) -> dict[str, Scored]:
    """The score of each group, in the order of their first items."""
    groups: dict[str, list[Record]] = {}
    for record in outcome.records:
        for group in record.groups:
            groups.setdefault(group, []).append(record)
    return {name: score_records(records, outcome) for name, records in groups.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _standing(estimate: Estimate, chance: float | None) -> Literal["above", "at", "below"] | None:
    return None if chance is None else statistics.against_chance(estimate, chance)
