"""A task's score from parameters and tokens, in two steps: the task's loss, then its score.

After Bhagia et al. 2024 (task loss as a surface in N and D, accuracy a sigmoid in it); with the
exponential curve of `tasks`, after Gadre et al. 2024. Not for fitting either step (`fit`, `tasks`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Protocol

from isoflop.laws.family import Estimate
from isoflop.laws.predict import Prediction
from isoflop.laws.tasks import TaskLaw


class LossSurface(Protocol):
    """A law of a loss over parameters and tokens."""

    @property
    def verdict(self) -> str:
        """`supported`, or why not."""

    def predict(self, params: float, tokens: float, level: float = 0.9) -> Prediction:
        """The loss of a run with its interval."""


@dataclass(frozen=True)
class TaskForecast:
    """What is foretold of a run's score."""

    loss: Prediction
    """Of the first step, in the unit of the task law's losses."""
    score: Estimate
    verdict: str
    """`supported` where both laws are; else the reason of the one that is not."""

    def to_dict(self) -> dict[str, Any]:
        """As the command line prints it."""
        return {"loss": self.loss.to_dict(), "score": asdict(self.score), "verdict": self.verdict}


def foretell_score(
    surface: LossSurface, task: TaskLaw, params: float, tokens: float, level: float = 0.9
) -> TaskForecast:
    """The score of a run of this size and horizon.

    Args:
        surface: Law of the loss that `task` was fitted in: the task's own, or the validation's.

    Raises:
        TableError: A number is not positive, or `level` not between 0 and 1.
    """
    loss = surface.predict(params, tokens, level)
    verdicts = [law.verdict for law in (surface, task) if law.verdict != "supported"]
    return TaskForecast(loss, score_at(loss, task), verdicts[0] if verdicts else "supported")


def score_at(loss: Prediction, task: TaskLaw) -> Estimate:
    """The score at a loss that is itself a forecast: its interval, taken as a normal one, is
    carried through the curve."""
    reach = NormalDist().inv_cdf(0.5 + loss.level / 2)
    return task.predict(loss.loss, loss.level, (loss.high - loss.low) / (2 * reach))
