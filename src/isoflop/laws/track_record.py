"""What earlier forecasts of one recipe came to, and what that says of its next; fits no law.

A law's form can lean to one side, the same for every ladder of a recipe: no ladder shows it, the
outcomes do. Their mean log error per e-fold of extrapolation is taken out of the next forecast, and
the interval widened by how well so few outcomes know that mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.laws.predict import Prediction

FEWEST = 3
"""Outcomes below which a mean error is as likely chance."""


@dataclass(frozen=True)
class Outcome:
    """One forecast, scored."""

    reach: float
    """Compute of the run over that of the largest run its law was fitted to; above 1."""
    predicted: float
    """What the law alone said, uncorrected."""
    measured: float


@dataclass(frozen=True)
class TrackRecord:
    """Outcomes of forecasts made with one recipe and one form."""

    outcomes: tuple[Outcome, ...]

    @property
    def lean(self) -> float:
        """Mean of ln(measured / predicted) per e-fold of reach: negative for forecasts too high."""
        return float(np.mean(self._errors()))

    @property
    def stderr(self) -> float:
        """Standard error of `lean`."""
        return float(np.std(self._errors(), ddof=1) / math.sqrt(len(self.outcomes)))

    def _errors(self) -> list[float]:
        return [math.log(o.measured / o.predicted) / math.log(o.reach) for o in self.outcomes]

    def correct(self, forecast: Prediction) -> Prediction:
        """The forecast without the recipe's lean.

        The half-widths (of the log loss) and the error of the lean add in quadrature; within the
        runs of the table nothing changes.
        """
        distance = math.log(forecast.extrapolation["flops"])
        if len(self.outcomes) < FEWEST or distance == 0.0:
            return forecast
        shift = self.lean * distance
        tail = float(student.ppf((1 + forecast.level) / 2, len(self.outcomes) - 1))
        error = tail * self.stderr * distance
        below = math.hypot(math.log(forecast.loss / forecast.low), error)
        above = math.hypot(math.log(forecast.high / forecast.loss), error)
        loss = forecast.loss * math.exp(shift)
        return replace(
            forecast, loss=loss, low=loss * math.exp(-below), high=loss * math.exp(above)
        )


def read_track_record(path: Path) -> TrackRecord:
    """Read a record: a JSON object whose `outcomes` hold `reach`, `predicted` and `measured`.

    Raises:
        ArtifactError: The file is missing or holds something else.
    """
    raw = read_json(path)
    try:
        outcomes = tuple(
            Outcome(float(o["reach"]), float(o["predicted"]), float(o["measured"]))
            for o in raw["outcomes"]
        )
    except (KeyError, TypeError, ValueError):
        raise ArtifactError("this is not a track record", where=str(path)) from None
    wrong = [o for o in outcomes if not (o.reach > 1 and o.predicted > 0 and o.measured > 0)]
    if wrong:
        raise ArtifactError(f"{wrong[0]} cannot be: reach must exceed 1, losses 0", where=str(path))
    return TrackRecord(outcomes)
