"""How much wider than its own draws a forecast must be, learnt from other tables' backtests.

Not for one table's own noise or parameters (interval, averaging).

The draws of a law show what its table leaves open. They cannot show that the truth has another
shape, or that the recipe of the large runs drifts away from the small ones': on public tables that
error is larger than anything a bootstrap sees. Two numbers carry what other tables say of it:

    spread² = (widen · own)² · (draws² + noise² + (drift · ln x)²)

with x how many times the target's compute exceeds the table's largest run's, and `own` what the
table's own large runs say (`averaging.own_width`). `drift` minimises the
interval score (Gneiting and Raftery 2007, eq. 43) over the trials; `widen` is the smallest factor
at which the intervals hold `level` of the outcomes and a margin, averaged over tables: a quantile
as in conformal prediction (Vovk et al. 2005), with tables, not runs, as what is exchangeable,
because the runs of one table err together. Below 1 it narrows: the members of an average disagree
more than they err.

`python benchmarks/laws_backtest.py --calibrate` refits the shipped file; `calibrate` takes trials
from anywhere, such as a ledger's scored promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.artifact import read_json, write_json
from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.forms import GAMMA, Array, printed_loss
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Law
from isoflop.laws.records import RunTable

SHIPPED = Path(__file__).with_name("calibration.json")
DRIFTS = np.concatenate([[0.0], np.geomspace(5e-4, 0.03, 25)])
WIDENS = np.geomspace(0.5, 8.0, 161)
FEWEST_TABLES = 3
MARGIN = 0.02
"""By how much more than asked the intervals hold on the tables seen: on sources left out of a
calibration they held two to three points less than on those in it."""
TAILS = (0.05, 0.95)
_WITHIN = NormalDist().inv_cdf(TAILS[1]) - NormalDist().inv_cdf(TAILS[0])


@dataclass(frozen=True)
class Trial:
    """What a law said of held-out runs, before any calibration, and what they came to; P runs."""

    table: str
    source: str
    """Tables of one source share a recipe and are left out together."""
    error: Array
    """(P,): ln of the outcome over the forecast."""
    draws: Array
    """(P,): standard deviation of ln loss over the law's draws, from their central 90 %."""
    noise: Array
    """(P,): run-to-run standard deviation there."""
    distance: Array
    """(P,): ln of the compute over the largest fitted run's; 0 within."""
    own: float = 1.0
    """The law's factor from its own table's large runs (`averaging.own_width`)."""


@dataclass(frozen=True)
class Calibration:
    """The two numbers, and where they come from."""

    drift: float
    widen: float
    level: float
    """Coverage that `widen` was chosen for."""
    tables: tuple[str, ...]
    points: int
    """Held-out runs behind it."""
    made: str
    """Date, as YYYY-MM-DD."""

    def save(self, path: Path | str) -> None:
        """Write the file that `load_calibration` reads, atomically."""
        write_json(Path(path), asdict(self))


def load_calibration(path: Path | str) -> Calibration:
    """Read a calibration file.

    Raises:
        ArtifactError: The file is missing, damaged or something else.
    """
    raw: Any = read_json(Path(path))
    try:
        return Calibration(
            float(raw["drift"]),
            float(raw["widen"]),
            float(raw["level"]),
            tuple(str(t) for t in raw["tables"]),
            int(raw["points"]),
            str(raw["made"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"this calibration cannot be read: {type(error).__name__} {error}", where=str(path)
        ) from None


@cache
def shipped() -> Calibration:
    """The calibration that comes with the package."""
    return load_calibration(SHIPPED)


def trial(law: Law, table: RunTable, name: str, source: str) -> Trial:
    """What `law` says of the runs of `table`, uncalibrated, beside their losses."""
    errors, draws, noise, distance = [], [], [], []
    for params, tokens, loss in zip(table.params, table.tokens, table.loss, strict=True):
        drawn = np.log(printed_loss(law.allowed[:, : GAMMA.size], params, tokens))
        centre = float(np.median(drawn))
        errors.append(float(np.log(loss)) - centre)
        # Quantiles, as the intervals are: a standard deviation would count far-off draws twice.
        draws.append(float(np.diff(np.quantile(drawn, TAILS))[0]) / _WITHIN)
        noise.append(law.noise.run_to_run * law.noise.at(centre))
        beyond = FLOPS_PER_PARAMETER_TOKEN * params * tokens / law.domain["flops"][1]
        distance.append(max(float(np.log(beyond)), 0.0))
    return Trial(
        name,
        source,
        np.array(errors),
        np.array(draws),
        np.array(noise),
        np.array(distance),
        law.noise.own,
    )


def from_promises(
    table: str,
    source: str,
    low: ArrayLike,
    high: ArrayLike,
    outcome: ArrayLike,
    beyond: ArrayLike,
    level: float = 0.9,
) -> Trial:
    """Scored promises (P of them), such as a ledger's, as a trial.

    Args:
        table: What the promises were about.
        source: Whose recipe; see `Trial`.
        low: Lower ends of the intervals promised.
        high: Upper ends.
        outcome: What was measured.
        beyond: How many times the largest fitted run's compute each was.
        level: Of the intervals.
    """
    lower, upper, measured, factor = (
        np.log(np.asarray(values, dtype=np.float64)) for values in (low, high, outcome, beyond)
    )
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    return Trial(
        table,
        source,
        measured - (lower + upper) / 2.0,
        (upper - lower) / (2.0 * z),
        np.zeros_like(lower),
        np.maximum(factor, 0.0),
    )


def spread(one: Trial, drift: float, widen: float = 1.0) -> Array:
    """Calibrated standard deviation (P,) of ln loss."""
    return np.asarray(
        widen * one.own * np.sqrt(one.draws**2 + one.noise**2 + (drift * one.distance) ** 2)
    )


def interval_score(error: Array, half_width: Array, level: float) -> Array:
    """Width plus 2/alpha for every unit by which an outcome is missed (P,); lower is better."""
    alpha = 1.0 - level
    missed = np.maximum(np.abs(error) - half_width, 0.0)
    return np.asarray(2.0 * half_width + 2.0 / alpha * missed)


def calibrate(trials: Sequence[Trial], made: str, level: float = 0.9) -> Calibration:
    """Fit drift and widen to the trials, every table counting alike.

    Args:
        trials: Several per table are fine (one for each cut).
        made: Date of the trials.

    Raises:
        TableError: Fewer than three tables.
    """
    tables = tuple(sorted({t.table for t in trials}))
    if len(tables) < FEWEST_TABLES:
        raise TableError(
            f"{len(tables)} tables are too few to calibrate on", where="trials", fix="Give more"
        )
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    best_score, drift, widen = np.inf, 0.0, 1.0
    for candidate in DRIFTS:
        needed = _widen(trials, float(candidate), level, z)
        score = float(
            np.mean(
                [
                    interval_score(t.error, z * spread(t, float(candidate), needed), level).mean()
                    for t in trials
                ]
            )
        )
        if score < best_score:
            best_score, drift, widen = score, float(candidate), needed
    points = sum(len(t.error) for t in trials)
    return Calibration(drift, widen, level, tables, points, made)


def _widen(trials: Sequence[Trial], drift: float, level: float, z: float) -> float:
    """Smallest factor at which `level` and a margin of the outcomes, trials alike, are held."""
    goal = level + MARGIN * (1.0 - level) / 0.1
    ratio = [np.abs(t.error) / (z * spread(t, drift)) for t in trials]
    for factor in WIDENS:
        if float(np.mean([np.mean(r <= factor) for r in ratio])) >= goal:
            return float(factor)
    return float(WIDENS[-1])
