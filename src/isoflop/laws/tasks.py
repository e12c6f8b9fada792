"""Task scores from loss, with intervals and refusals; not for the loss itself (predict) nor for
telling thresholds from artefacts of a metric.

Two curves of the score s (a share between 0 and 1) in the loss L:

- `exponential`: s = 1 - epsilon + k·exp(-gamma·L), that is error = epsilon - k·exp(-gamma·L)
  (Gadre et al. 2024, eq. 5);
- `sigmoid`: s = floor + gain / (1 + exp(slope·(L - middle))), whose limit far above `middle` is the
  exponential one, and which levels off where a task is solved.

Where the runs do not show where a task levels off, weak beliefs keep the curves within reason. No
curve holds from a task's first steps to its end, so the sigmoid is an average over how much of the
table to trust, as in `averaging`: run i is fitted with the weight exp(-kappa·h_i), h_i = ln(L_i /
the lowest L), and each kappa gets a share of S^-m, S being its error when the better third of the
runs is foretold from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

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
from isoflop.laws.interval import excess
from isoflop.laws.task_curves import FORMULAS, PARAMETERS, Curve, Problem, scores

FORM = "loss-to-task"
SIGNAL = 3.0  # rise over the table against the scatter about the curve
TREND_P = 0.01
TAILS = (0.25, 1.0 / 3.0, 0.5)
FEWEST_IN_TAIL = 6
WIDEST = 0.15
HELD_SHARE = 1.0 / 3.0
RELEVANCES: dict[str, tuple[float, ...]] = {
    "exponential": (0.0,),  # as Gadre et al. fit it
    "sigmoid": (0.0, 8.0, 16.0, 24.0),
}
ERRORS = 4.0
"""m, as in `averaging`: neighbouring runs share their error."""
FEWEST_ROLLED = 3
MOST_SHAKEN = 0.3
SCATTER_BELIEF = 4.0
"""Runs' worth of the belief that scores near the lowest loss scatter as all of them do."""
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
    about it; `drift`, how much further off per nat below the lowest loss a score came to lie when
    the better third of the runs was foretold from the rest; and of the curves averaged their
    `relevances`, `shares` and parameters (`curves`), first those of the printed ones."""

    NEEDS = ("curves", "curve", "shares", "drift", "scatter")

    def curve(self, loss: ArrayLike) -> Array:
        """Scores (A,) at losses of any shape (A,): the average of the members' best curves."""
        points = np.asarray(loss, dtype=np.float64).reshape(1, -1)
        curves = np.array(self.noise["curves"])
        found = scores(self.noise["curve"], curves, points)
        return np.asarray(np.average(found, axis=0, weights=self.noise["shares"]))

    def predict(self, loss: float, level: float = 0.9, loss_stderr: float = 0.0) -> Estimate:
        """The score of a run with this loss: the average of the members' curves, and an interval.

        Args:
            loss_stderr: Standard deviation of the loss, where it is itself a forecast.

        Raises:
            TableError: `loss` is not positive, or `level` not between 0 and 1.
        """
        check_level(level)
        columns(FORM, loss=loss)
        rng = np.random.default_rng(0)
        losses = loss + loss_stderr * rng.standard_normal(len(self.draws))
        drawn = scores(self.noise["curve"], self.draws, losses[:, None])[:, 0]
        beyond = max(self.domain["loss"][0] - loss, 0.0)
        drift = np.hypot(self.noise["drift"], USUAL_DRIFT)
        off = np.hypot(self.noise["scatter"], drift * beyond)
        noisy = drawn + off * rng.standard_normal(len(drawn))
        low, high = np.quantile(noisy, [0.5 - level / 2, 0.5 + level / 2])
        value = float(np.clip(self.curve(loss)[0], 0.0, 1.0))
        low, high = max(float(low), 0.0), min(float(high), 1.0)
        return Estimate(value, min(low, value), max(high, value), level)


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
    return _fit(Problem(curve, x, chance is not None), y, chance, draws, seed)


@dataclass(frozen=True)
class _Member:
    """Curves fitted at one relevance."""

    relevance: float
    best: Array
    """(K,): printed parameters."""
    draws: Array
    """(B, K), printed."""
    scatter: float


def _fit(problem: Problem, y: Array, chance: float | None, draws: int, seed: int) -> TaskLaw:
    share, drift = _roll_out(problem, y, chance, seed)
    wanted = np.round(share * draws).astype(int).tolist()
    fitted = _members(problem, y, chance, wanted, np.random.default_rng(seed))
    members = [(part, m) for part, m in zip(share, fitted, strict=True) if len(m.draws)]
    members.sort(key=lambda pair: -pair[0])
    drawn = np.concatenate([m.draws for _, m in members])
    weight = [part for part, _ in members]
    names = PARAMETERS[problem.curve]
    law = TaskLaw(
        form=FORM,
        formula=FORMULAS[problem.curve],
        parameters=named(names, members[0][1].best),
        stderr=named(names, spread(drawn)),
        draws=drawn,
        noise={
            "curve": problem.curve,
            "scatter": float(
                np.sqrt(np.average([m.scatter**2 for _, m in members], weights=weight))
            ),
            "drift": drift,
            "relevances": [m.relevance for _, m in members],
            "shares": [float(part) for part in weight],
            "curves": [m.best.tolist() for _, m in members],
        },
        objective="lsq",
        n_runs=len(problem.loss),
        domain={"loss": ends(problem.loss), "score": ends(y)},
        source=(),
        warnings=_turned(problem.loss, y),
        verdict="supported",
    )
    reason = _refusal(law, fitted[0], problem.loss, y)
    return law if reason is None else replace(law, verdict=f"unsupported: {reason}")


def _roll_out(problem: Problem, y: Array, chance: float | None, seed: int) -> tuple[Array, float]:
    """Shares of the relevances (M,), and the error beyond what draws and scatter explain, per nat
    of extrapolation, when the better third of the runs is foretold from the rest."""
    x, relevances = problem.loss, RELEVANCES[problem.curve]
    alone = np.array([1.0, *[0.0] * (len(relevances) - 1)])
    held = x < np.quantile(x, HELD_SHARE)
    if (~held).sum() <= len(PARAMETERS[problem.curve]) + 1 or held.sum() < FEWEST_ROLLED:
        return alone, 0.0
    part = Problem(problem.curve, x[~held], problem.fixed_floor)
    rng = np.random.default_rng(seed)
    members = _members(part, y[~held], chance, [ROLL_OUT_DRAWS] * len(relevances), rng)
    drawn = np.stack([scores(problem.curve, m.draws, x[held][None]) for m in members])
    said = scores(problem.curve, np.array([m.best for m in members]), x[held])
    scatter = np.array([m.scatter for m in members])
    error = np.sqrt(np.mean((said - y[held]) ** 2, axis=1))
    blurred = np.hypot(error, 0.5 * scatter.min())
    share = (blurred / blurred.min()) ** -ERRORS
    share /= share.sum()
    mean = share @ said
    known = share @ (drawn.var(axis=1) + (said - mean) ** 2 + scatter[:, None] ** 2)
    beyond = np.sum((y[held] - mean) ** 2 - known)
    distance = float(np.sum((x[~held].min() - x[held]) ** 2))
    return share, float(np.sqrt(max(beyond, 0.0) / distance))


def _members(
    problem: Problem,
    y: Array,
    chance: float | None,
    draws: list[int],
    rng: np.random.Generator,
) -> list[_Member]:
    """The curve at every relevance; the first, of relevance 0, says what scatter to believe in."""
    found: list[_Member] = []
    for relevance, count in zip(RELEVANCES[problem.curve], draws, strict=True):
        believed = found[0].scatter if found else None
        found.append(_member(problem, y, chance, relevance, believed, count, rng))
    return found


def _member(
    problem: Problem,
    y: Array,
    chance: float | None,
    relevance: float,
    believed: float | None,
    draws: int,
    rng: np.random.Generator,
) -> _Member:
    """Randomised maximum a posteriori (as in `interval`): a draw refits the scores with noise
    added, under beliefs whose centres are moved by their own width."""
    x, size = problem.loss, len(PARAMETERS[problem.curve])
    free = np.arange(size) >= problem.fixed_floor
    weight = np.exp(-relevance * excess(x, float(x.min())))
    starts = problem.start(y, chance)
    scatter = 0.02
    for _ in range(2):  # the weight of the beliefs depends on the scatter, and it on the fit
        beliefs = problem.beliefs(scatter**2)
        found, objective = fit_curves(problem.score, y, weight, starts, beliefs, 200)
        best = found[int(np.argmin(objective))]
        values, jacobian = problem.score(best[None])
        off, rows = values[0] - y, jacobian[0][:, free]
        information = (rows.T * weight) @ rows
        posterior = information + np.diag(beliefs.precision[free])
        used = float(np.trace(np.linalg.pinv(posterior) @ information))
        freedom = max(float(weight.sum()) - used, 1.0)
        scatter = max(float(np.sqrt(weight @ off**2 / freedom)), LEAST_SCATTER)
    if believed is not None:  # few runs near the lowest loss say little of their own scatter
        squares = SCATTER_BELIEF * believed**2 + freedom * scatter**2
        freedom += SCATTER_BELIEF
        scatter = float(np.sqrt(squares / freedom))
    beliefs = problem.beliefs(scatter**2)
    spreads = scatter * np.sqrt(freedom / rng.chisquare(freedom, size=(draws, 1)))
    width = np.where(beliefs.precision > 0.0, scatter / np.sqrt(beliefs.precision + 1e-300), 0.0)
    if draws == 0:
        return _Member(relevance, problem.printed(best[None])[0], np.empty((0, size)), scatter)
    moved = Beliefs(beliefs.centre + width * rng.standard_normal((draws, size)), beliefs.precision)
    shaken = np.minimum(spreads / np.sqrt(weight), MOST_SHAKEN)
    noisy = y + shaken * rng.standard_normal((draws, len(x)))
    start = np.broadcast_to(best, (draws, size))
    drawn = fit_curves(problem.score, noisy, weight, start, moved, DRAW_STEPS)[0]
    return _Member(relevance, problem.printed(best[None])[0], problem.printed(drawn), scatter)


def _refusal(law: TaskLaw, plain: _Member, x: Array, y: Array) -> str | None:
    """Why the task cannot be forecast, or None."""
    if _trend(x, y) > 1.0 - TREND_P:
        return "inverse scaling: the score does not rise but falls as the loss falls"
    if _trend(-x, y) < 1.0 - TREND_P:
        return "the score does not rise as the loss falls: the task is at chance for these models"
    for share in TAILS:
        better = x <= np.quantile(x, share)
        if better.sum() >= FEWEST_IN_TAIL and _trend(x[better], y[better]) > 1.0 - TREND_P:
            return (
                "inverted U: the score falls again among the better models: it is not monotone in "
                "the loss"
            )
    ends_of_table = np.array([x.max(), x.min()])
    at_ends = scores(law.noise["curve"], plain.best[None], ends_of_table)[0]
    if at_ends[1] - at_ends[0] < SIGNAL * plain.scatter:
        return (
            f"the score rises by {100 * (at_ends[1] - at_ends[0]):.1f} points over the table, "
            f"which its scatter of {100 * plain.scatter:.1f} points drowns"
        )
    beyond = law.predict(float(x.min() - 0.05 * (x.max() - x.min())))
    if beyond.high - beyond.low > WIDEST:
        return (
            f"a little below the lowest loss the score could be {beyond.low:.0%} to "
            f"{beyond.high:.0%}; add runs near the loss that matters"
        )
    return None


def _turned(x: Array, y: Array) -> tuple[str, ...]:
    """A warning where the score falls before it rises."""
    for share in TAILS:
        worse = x >= np.quantile(x, 1.0 - share)
        if worse.sum() >= FEWEST_IN_TAIL and _trend(x[worse], y[worse]) > 1.0 - TREND_P:
            return (
                "U-shaped: among the worse models the score falls as the loss falls; the curve "
                "holds for the better ones",
            )
    return ()


def _trend(x: Array, y: Array) -> float:
    """Probability that a rank correlation as high as that of y with x is not chance (Spearman 1904,
    Student approximation)."""
    from scipy.stats import spearmanr  # reading a law back does not need it

    if np.ptp(y) == 0.0:
        return 0.5
    return 1.0 - float(spearmanr(x, y, alternative="greater").pvalue)
