"""Scores of tasks from tables of other people's benchmarks: observational scaling.

After Ruan, Maddison & Hashimoto 2024: benchmark scores of many models span few directions
(principal components); within a family each grows linearly in log compute; a further task is a
sigmoid of them. Not for runs of one's own, whose losses say more (`tasks`, `two_step`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.errors import TableError
from isoflop.laws.family import Estimate
from isoflop.laws.forms import Array

FEWEST_MODELS = 8
FEWEST_OF_FAMILY = 3
DRAWS = 400
_IMPUTATIONS = 200
_EDGE = 0.01
"""Shares nearer to 0 or 1 are taken to lie here before their log odds."""
Places = NDArray[np.int64] | NDArray[np.bool_]
_RIDGE = 1e-3
"""Pull of the task's coefficients towards 0, for scores that the components part exactly."""


@dataclass(frozen=True)
class Components:
    """What the benchmarks have in common."""

    names: tuple[str, ...]
    """The benchmarks."""
    mean: Array
    """(B,)"""
    spread: Array
    """(B,)"""
    loadings: Array
    """(B, K), orthonormal columns."""
    explained: tuple[float, ...]
    """Share of the variance, of each component."""

    def of(self, scores_MB: Array) -> Array:
        """(M, K) components of whole rows of scores."""
        return np.asarray(((scores_MB - self.mean) / self.spread) @ self.loadings)


@dataclass(frozen=True)
class Observation:
    """A task foretold for a family at a compute."""

    score: Estimate
    capability: tuple[float, ...]
    """The components expected there."""
    models: int
    """Models that the task was fitted on."""
    explained: tuple[float, ...]
    """Share of the benchmarks' variance in each component."""
    beyond: float
    """Compute asked about over the family's largest."""

    def to_dict(self) -> dict[str, Any]:
        """As the command line prints it."""
        return asdict(self)


def components(scores_MB: Array, names: Sequence[str], count: int = 3) -> Components:
    """Principal components of standardised scores; missing ones (NaN) are filled in from the
    components themselves, again and again (Roweis 1998).

    Raises:
        TableError: Too few models or benchmarks, or a benchmark on which all models are equal.
    """
    models, benchmarks = scores_MB.shape
    if models < FEWEST_MODELS or benchmarks < 2:
        raise TableError(
            f"{models} models on {benchmarks} benchmarks; components need {FEWEST_MODELS} on 2",
            where="observational scaling",
        )
    known = np.isfinite(scores_MB)
    for column, name in enumerate(names):
        values = scores_MB[known[:, column], column]
        if len(values) < 2 or np.ptp(values) == 0:
            raise TableError(f"{name} tells no two models apart", fix="Leave it out")
    filled = np.where(known, scores_MB, np.nanmean(scores_MB, axis=0))
    count = min(count, benchmarks)
    for _ in range(1 if known.all() else _IMPUTATIONS):
        mean, spread = filled.mean(axis=0), filled.std(axis=0)
        standard = (filled - mean) / spread
        _, values, rows = np.linalg.svd(standard, full_matrices=False)
        loadings = rows[:count].T
        filled = np.where(known, scores_MB, mean + spread * (standard @ loadings @ loadings.T))
    loadings = loadings * np.sign(loadings.sum(axis=0))  # more is better
    shares = values**2 / (values**2).sum()
    return Components(tuple(names), mean, spread, loadings, tuple(shares[:count].tolist()))


def observe(
    benchmarks: Mapping[str, Sequence[float]],
    target: Sequence[float],
    family: Sequence[str],
    flops: Sequence[float],
    *,
    ask_family: str,
    ask_flops: float,
    count: int = 3,
    chance: float = 0.0,
    level: float = 0.9,
    seed: int = 0,
) -> Observation:
    """Foretell a task's score for a family at a compute.

    Args:
        benchmarks: Name → scores of M models, shares; NaN where unknown.
        target: (M,) scores of the task; NaN where unknown, as at the compute asked about.
        family: (M,) names of families.
        flops: (M,) training compute.
        chance: Score of guessing the task.
        level: Probability of the interval. Models are drawn again, and each draw's own scatter
            about its fit is added.

    Raises:
        TableError: The table has too few models, or the family fewer than three.
    """
    names = tuple(benchmarks)
    scores_MB = np.stack([np.asarray(benchmarks[name], dtype=np.float64) for name in names], axis=1)
    y, c = np.asarray(target, dtype=np.float64), np.log(np.asarray(flops, dtype=np.float64))
    kin = np.asarray([str(each) for each in family])
    own = np.flatnonzero(kin == ask_family)
    if len(own) < FEWEST_OF_FAMILY:
        listed = sorted({name for name in kin.tolist() if (kin == name).sum() >= FEWEST_OF_FAMILY})
        raise TableError(
            f"{len(own)} models of the family {ask_family}; its line needs {FEWEST_OF_FAMILY}",
            fix=f"Families with enough: {', '.join(listed) or 'none'}",
        )
    if not (math.isfinite(ask_flops) and ask_flops > 0):
        raise TableError(f"flops must be positive, not {ask_flops:g}")
    found = components(scores_MB, names, count)
    told = np.isfinite(y)
    if told.sum() < FEWEST_MODELS:
        raise TableError(f"{int(told.sum())} models have the task's score; {FEWEST_MODELS} do")
    if np.ptp(c[own]) == 0:
        raise TableError(f"all models of {ask_family} have one compute: there is no line")
    placed = _placed(found, scores_MB)
    at = math.log(ask_flops)
    value, capability = _foretold(placed, y, c, own, told, at, chance)[:2]
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    while len(drawn) < DRAWS:
        rows = rng.choice(np.flatnonzero(told), int(told.sum()))
        line = rng.choice(own, len(own))
        if np.ptp(c[line]) == 0:
            continue
        logit, _, scatter = _foretold(placed, y, c, line, rows, at, chance)
        drawn.append(logit + scatter * rng.standard_normal())
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    low, high = min(float(low), value), max(float(high), value)
    score = Estimate(_share(value, chance), _share(low, chance), _share(high, chance), level)
    return Observation(
        score, tuple(capability.tolist()), int(told.sum()), found.explained,
        float(math.exp(at - c[own].max())),
    )  # fmt: skip


def _placed(found: Components, scores_MB: Array) -> Array:
    """(M, K) components of all models; what a row lacks is estimated from what it has."""
    standard = (scores_MB - found.mean) / found.spread
    rows = []
    for row in standard:
        there = np.isfinite(row)
        design = found.loadings[there]
        pull = _RIDGE * np.eye(design.shape[1])
        rows.append(np.linalg.solve(design.T @ design + pull, design.T @ row[there]))
    return np.array(rows)


def _foretold(
    placed: Array, y: Array, c: Array, own: Places, rows: Places, at: float, chance: float
) -> tuple[float, Array, float]:
    """(log odds at the compute asked about, components there, scatter of log odds)."""
    line = np.stack([np.ones(len(own)), c[own] - at], axis=1)
    through, *_ = np.linalg.lstsq(line, placed[own], rcond=None)
    capability = through[0]
    share = np.clip((y[rows] - chance) / (1 - chance), _EDGE, 1 - _EDGE)
    odds = np.log(share / (1 - share))
    design = np.column_stack([np.ones(len(odds)), placed[rows]])
    pull = _RIDGE * len(odds) * np.eye(design.shape[1])
    theta = np.linalg.solve(design.T @ design + pull, design.T @ odds)
    spare = max(len(odds) - design.shape[1], 1)
    task_scatter = float(((odds - design @ theta) ** 2).sum() / spare)
    # The family's own models scatter about its line too, along the task's direction.
    off = (placed[own] - line @ through) @ theta[1:]
    own_scatter = float((off**2).sum() / max(len(own) - 2, 1))
    value = float(theta[0] + capability @ theta[1:])
    return value, capability, math.sqrt(task_scatter + own_scatter)


def _share(odds: float, chance: float) -> float:
    return chance + (1 - chance) / (1 + math.exp(-min(max(odds, -50.0), 50.0)))
