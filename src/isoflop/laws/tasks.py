"""Task scores from loss, with intervals and refusals; not for the loss itself (predict) nor for
telling thresholds from artefacts of a metric.

Two curves of the score s (a share between 0 and 1) in the loss L:

- `exponential`: s = 1 - epsilon + k·exp(-gamma·L), that is error = epsilon - k·exp(-gamma·L)
  (Gadre et al. 2024, eq. 5);
- `sigmoid`: s = floor + gain / (1 + exp(slope·(L - middle))), whose limit far above `middle` is the
  exponential one, and which levels off where a task is solved.

Where the runs do not show where a task levels off, weak beliefs keep the curves within reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from isoflop.core.errors import TableError
from isoflop.laws.family import (
    Beliefs,
    Estimate,
    Family,
    check_level,
    check_refits,
    columns,
    ends,
    fit_curves,
    named,
    spread,
)
from isoflop.laws.forms import Array

Curve = Literal["exponential", "sigmoid"]
FORM = "loss-to-task"
PARAMETERS: dict[str, tuple[str, ...]] = {
    "exponential": ("epsilon", "k", "gamma"),
    "sigmoid": ("floor", "gain", "slope", "middle"),
}
FORMULAS = {
    "exponential": "score = 1 - (epsilon - k*exp(-gamma*loss))",
    "sigmoid": "score = floor + gain/(1 + exp(slope*(loss - middle)))",
}
SIGNAL = 3.0  # rise over the table against the scatter about the curve
TREND_P = 0.01
TAILS = (0.25, 1.0 / 3.0, 0.5)
FEWEST_IN_TAIL = 6
WIDEST = 0.15
HELD_SHARE = 1.0 / 3.0
# Standard deviation per nat below the lowest loss that no roll-out inside a table shows. Every
# other of Gadre et al.'s 46 tasks, foretold from models up to 0.41 B to 1.4 and 6.9 B, gave it; the
# rest checks it (benchmarks/laws_hyper.py).
USUAL_DRIFT = 0.1
ROLL_OUT_DRAWS = 100
DRAW_STEPS = 20
LEAST_SCATTER = 1e-4


@dataclass(frozen=True)
class TaskLaw(Family):
    """A curve fitted by `fit_task`; `noise` holds `curve`; `scatter`, the deviation of a score
    about it; and `drift`, how much further off per nat below the lowest loss a score came to lie
    when the better third of the runs was foretold from the rest."""

    def curve(self, loss: ArrayLike) -> Array:
        """The printed curve's scores at losses of any shape (A,), as (A,)."""
        points = np.asarray(loss, dtype=np.float64).reshape(1, -1)
        return np.asarray(_scores(self.noise["curve"], self.values(), points)[0])

    def predict(self, loss: float, level: float = 0.9, loss_stderr: float = 0.0) -> Estimate:
        """The score of a run with this loss: the mean of the curves allowed, and an interval.

        Args:
            loss_stderr: Standard deviation of the loss, where it is itself a forecast.

        Raises:
            TableError: `loss` is not positive, or `level` not between 0 and 1.
        """
        check_level(level)
        columns(FORM, loss=loss)
        rng = np.random.default_rng(0)
        losses = loss + loss_stderr * rng.standard_normal(len(self.draws))
        drawn = _scores(self.noise["curve"], self.draws, losses[:, None])[:, 0]
        beyond = max(self.domain["loss"][0] - loss, 0.0)
        drift = np.hypot(self.noise["drift"], USUAL_DRIFT)
        off = np.hypot(self.noise["scatter"], drift * beyond)
        noisy = drawn + off * rng.standard_normal(len(drawn))
        low, high = np.quantile(noisy, [0.5 - level / 2, 0.5 + level / 2])
        value = float(np.clip(drawn.mean(), 0.0, 1.0))
        return Estimate(value, max(float(low), 0.0), min(float(high), 1.0), level)


def from_document(document: Mapping[str, Any]) -> TaskLaw:
    """The law of a `law.json` document; ArtifactError where it is not one."""
    return TaskLaw.from_document(document)


def fit_task(
    loss: ArrayLike,
    score: ArrayLike,
    *,
    curve: Curve = "sigmoid",
    chance: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> TaskLaw:
    """Fit a curve of scores (R,), shares between 0 and 1, in losses (R,).

    Args:
        chance: Score of guessing, where known: it becomes the curve's floor. Fitted when None.

    Raises:
        TableError: Unknown curve, scores outside 0 to 1, or fewer runs than the curve has
            parameters plus one. A task that can be fitted but not forecast, because it stays at
            chance, or gets worse with better models, gets the verdict `unsupported`.
    """
    check_refits(draws)
    if curve not in PARAMETERS:
        raise TableError(f"there is no curve {curve!r}", where=FORM, fix="Choose a known one")
    table = columns(FORM, loss=loss, score=score)
    x, y = table["loss"], table["score"]
    if y.min() < 0.0 or y.max() > 1.0:
        raise TableError(
            f"scores go from {y.min():g} to {y.max():g}, not from 0 to 1",
            where=FORM,
            fix="Give shares: divide percentages by 100",
        )
    if len(x) <= len(PARAMETERS[curve]) or np.ptp(x) == 0.0:
        raise TableError(
            f"{len(x)} runs cannot determine the {len(PARAMETERS[curve])} parameters of "
            f"{FORMULAS[curve]}",
            where=FORM,
            fix="Add runs of other losses",
        )
    return _fit(_Problem(curve, x, chance is not None), y, chance, draws, seed)


def _fit(problem: _Problem, y: Array, chance: float | None, draws: int, seed: int) -> TaskLaw:
    law = _fit_plain(problem, y, chance, draws, seed)
    law = replace(law, noise=law.noise | {"drift": _drift(problem, y, chance, seed)})
    reason = _refusal(law, problem.loss, y)
    return law if reason is None else replace(law, verdict=f"unsupported: {reason}")


def _drift(problem: _Problem, y: Array, chance: float | None, seed: int) -> float:
    """Error beyond what draws and scatter explain, per nat of extrapolation, from a roll-out."""
    x = problem.loss
    held = x < np.quantile(x, HELD_SHARE)
    if (~held).sum() <= len(PARAMETERS[problem.curve]) + 1 or not held.any():
        return 0.0
    part = _Problem(problem.curve, x[~held], problem.fixed_floor)
    law = _fit_plain(part, y[~held], chance, ROLL_OUT_DRAWS, seed)
    drawn = _scores(problem.curve, law.draws, x[held][None])
    known = drawn.var(axis=0) + law.noise["scatter"] ** 2
    excess = np.sum((y[held] - drawn.mean(axis=0)) ** 2 - known)
    distance = float(np.sum((x[~held].min() - x[held]) ** 2))
    return float(np.sqrt(max(excess, 0.0) / distance))


def _fit_plain(problem: _Problem, y: Array, chance: float | None, draws: int, seed: int) -> TaskLaw:
    """Randomised maximum a posteriori (as in `interval`): a draw refits the scores with noise
    added, under beliefs whose centres are moved by their own width."""
    x, names = problem.loss, PARAMETERS[problem.curve]
    starts = problem.start(y, chance)
    ones = np.ones_like(x)
    scatter, freedom = 0.02, max(len(x) - len(names) + (chance is not None), 1)
    for _ in range(2):  # the weight of the beliefs depends on the scatter, and it on the fit
        beliefs = problem.beliefs(scatter**2)
        found, objective = fit_curves(problem.score, y, ones, starts, beliefs, 200)
        best = found[int(np.argmin(objective))]
        off = problem.score(best[None])[0][0] - y
        scatter = max(float(np.sqrt(off @ off / freedom)), LEAST_SCATTER)
    rng = np.random.default_rng(seed)
    spreads = scatter * np.sqrt(freedom / rng.chisquare(freedom, size=(draws, 1)))
    width = np.where(beliefs.precision > 0.0, scatter / np.sqrt(beliefs.precision + 1e-300), 0.0)
    moved = Beliefs(
        beliefs.centre + width * rng.standard_normal((draws, len(names))), beliefs.precision
    )
    noisy = y + spreads * rng.standard_normal((draws, len(x)))
    start = np.broadcast_to(best, (draws, len(names)))
    drawn = problem.printed(fit_curves(problem.score, noisy, ones, start, moved, DRAW_STEPS)[0])
    return TaskLaw(
        form=FORM,
        formula=FORMULAS[problem.curve],
        parameters=named(names, problem.printed(best[None])[0]),
        stderr=named(names, spread(drawn)),
        draws=drawn,
        noise={"curve": problem.curve, "scatter": scatter, "drift": 0.0},
        objective="lsq",
        n_runs=len(x),
        domain={"loss": ends(x), "score": ends(y)},
        source=(),
        warnings=(),
        verdict="supported",
    )


def _refusal(law: TaskLaw, x: Array, y: Array) -> str | None:
    """Why the task cannot be forecast, or None."""
    if _trend(-x, y) < 1.0 - TREND_P:
        return "the score does not rise as the loss falls: the task is at chance for these models"
    for share in TAILS:
        better = x <= np.quantile(x, share)
        if better.sum() >= FEWEST_IN_TAIL and _trend(x[better], y[better]) > 1.0 - TREND_P:
            return "the score falls again among the better models: it is not monotone in the loss"
    at_ends = law.curve([x.max(), x.min()])
    if at_ends[1] - at_ends[0] < SIGNAL * law.noise["scatter"]:
        return (
            f"the score rises by {100 * (at_ends[1] - at_ends[0]):.1f} points over the table, "
            f"which its scatter of {100 * law.noise['scatter']:.1f} points drowns"
        )
    beyond = law.predict(float(x.min() - 0.05 * (x.max() - x.min())))
    if beyond.high - beyond.low > WIDEST:
        return (
            f"a little below the lowest loss the score could be {beyond.low:.0%} to "
            f"{beyond.high:.0%}; add runs near the loss that matters"
        )
    return None


def _trend(x: Array, y: Array) -> float:
    """Probability that a rank correlation as high as that of y with x is not chance (Spearman 1904,
    Student approximation)."""
    from scipy.stats import spearmanr  # reading a law back does not need it

    if np.ptp(y) == 0.0:
        return 0.5
    return 1.0 - float(spearmanr(x, y, alternative="greater").pvalue)


def _scores(curve: str, theta: Array, loss: Array) -> Array:
    """Scores (B, A) of parameters (B, K) at losses (A,) or (B, A)."""
    if curve == "exponential":
        return np.asarray(1.0 - theta[:, :1] + theta[:, 1:2] * np.exp(-theta[:, 2:3] * loss))
    turned = np.clip(theta[:, 2:3] * (loss - theta[:, 3:4]), -500.0, 500.0)
    return np.asarray(theta[:, :1] + theta[:, 1:2] / (1.0 + np.exp(turned)))


@dataclass(frozen=True)
class _Problem:
    """Fits of one curve in coordinates in which every value is allowed: for the exponential
    (epsilon, ln k, ln gamma), for the sigmoid (floor, logit of floor + gain, ln slope, middle)."""

    curve: str
    loss: Array
    fixed_floor: bool

    def score(self, theta: Array) -> tuple[Array, Array]:
        """Scores (B, R) and their derivatives (B, R, K)."""
        jacobian = np.empty((len(theta), len(self.loss), theta.shape[1]))
        if self.curve == "exponential":
            gamma = np.exp(theta[:, 2:3])
            rise = np.exp(np.minimum(theta[:, 1:2] - gamma * self.loss, 50.0))
            jacobian[:, :, 0], jacobian[:, :, 1] = -1.0, rise
            jacobian[:, :, 2] = -gamma * self.loss * rise
            values = 1.0 - theta[:, :1] + rise
        else:
            top = 1.0 / (1.0 + np.exp(-theta[:, 1:2]))
            slope, off = np.exp(theta[:, 2:3]), self.loss - theta[:, 3:4]
            share = 1.0 / (1.0 + np.exp(np.clip(slope * off, -500.0, 500.0)))
            bend = -(top - theta[:, :1]) * share * (1.0 - share) * slope
            jacobian[:, :, 0], jacobian[:, :, 1] = 1.0 - share, share * top * (1.0 - top)
            jacobian[:, :, 2], jacobian[:, :, 3] = bend * off, -bend
            values = theta[:, :1] + (top - theta[:, :1]) * share
        if self.fixed_floor:
            jacobian[:, :, 0] = 0.0
        return values, jacobian

    def start(self, score: Array, chance: float | None) -> Array:
        """Plausible curves (S, K) to start from: several middles or rates."""
        level = float(score.min()) if chance is None else chance
        span = float(np.ptp(self.loss))
        if self.curve == "exponential":
            gamma = np.array([0.3, 0.8, 2.0, 5.0])
            height = max(float(score.max()) - level, 1e-3)
            ln_k = np.log(height) + gamma * self.loss.min()
            return np.column_stack([np.full(4, 1.0 - level), ln_k, np.log(gamma)])
        middle = self.loss.min() + span * np.array([-0.3, 0.0, 0.2, 0.5])
        top = float(np.clip(max(score.max(), level) + 0.1, 0.05, 0.95))
        shape = [np.full(4, level), np.full(4, _logit(top)), np.full(4, np.log(8.0 / span)), middle]
        return np.column_stack(shape)

    def beliefs(self, variance: float) -> Beliefs:
        """Weak beliefs: a transition as wide as a few eighths of the table, near its best models,
        towards a top far above the floor; none for the exponential curve."""
        span = float(np.ptp(self.loss))
        if self.curve == "exponential":
            centre, width = np.zeros(3), np.full(3, np.inf)
        else:
            centre = np.array([0.0, _logit(0.8), np.log(8.0 / span), float(self.loss.min())])
            width = np.array([np.inf, 1.0, 0.8, 0.3 * span])
        return Beliefs(centre, variance / width**2)

    def printed(self, theta: Array) -> Array:
        """Printed parameters (B, K) of coordinates (B, K)."""
        shown = np.array(theta)
        if self.curve == "exponential":
            shown[:, 1:] = np.exp(np.minimum(theta[:, 1:], 300.0))
        else:
            shown[:, 1] = 1.0 / (1.0 + np.exp(-theta[:, 1])) - theta[:, 0]
            shown[:, 2] = np.exp(theta[:, 2])
        return shown


def _logit(share: float) -> float:
    return float(np.log(share / (1.0 - share)))
