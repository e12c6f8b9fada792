"""Whether an ability emerges: a threshold, an effect of the metric, a lottery of seeds, or smooth.

For each task, right answers per rung and seed are compared with smooth curves and with curves that
have a step (`step_curves`). What counts as a step is decided by simulation from the best smooth
curve, with the seeds' own scatter, and by Holm's rule over the tasks. A step that the continuous
score (log-probability of the right answer) does not have is an effect of the metric (Schaeffer et
al. 2023): scoring all-or-nothing hides progress that was there all along. Seeds of one rung that
split into those that can and those that cannot are a lottery, whatever their mean does.

Not for reading tables (`scores`), nor for losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from isoflop.laws.forms import Array
from isoflop.laws.score_trends import BigBench, Trend, big_bench, second_differences, trend_of
from isoflop.laws.scores import TaskScores, seed_scatter
from isoflop.laws.step_curves import Curves, curves_of, fit_curves
from isoflop.laws.step_lines import LineStep, line_step

Verdict = Literal["smooth", "metric effect", "threshold", "seed lottery", "not enough data"]

FEWEST_RUNGS = 5
SPLIT_GAP = 0.25
"""Shares between neighbouring seeds of a rung that count as apart, where chance is too small."""
SPLIT_SIGMAS = 4.0
FLAT = 0.1
"""Share of the whole rise below which a rung still stands at the bottom."""
FLAT_RUNGS = 1 / 3
"""Share of the rungs at the bottom from which a curve looks as if it emerged."""
LEAST_RISE = 0.2
"""Rise, in share of right answers, below which nothing looks as if it emerged."""
LEAST_STEP = 0.15
"""Step, in share of right answers, below which it is no threshold."""
LEAST_STEP_SHARE = 0.15
"""Step of a continuous score, as a share of its range, below which it has none."""
WANTED_STEP = 0.3
"""The step that must not go unseen: 30 points."""
WANTED_POWER = 0.8
_OUT_OF_THE_QUESTION = 15.0
"""Log-likelihood below the best smooth curve's from which another's ends are not tried again."""


@dataclass(frozen=True)
class Emergence:
    """What the scores of one task say."""

    task: str
    verdict: Verdict
    reason: str
    """One sentence with the figures that decided."""
    p_step: float | None
    """Probability of so large a step in a smooth world, corrected for the number of tasks."""
    step_at: tuple[float, float] | None
    """Scales between which the step lies (90 %); None without one."""
    step_size: float | None
    """The step in share of right answers."""
    continuous_step: LineStep | None
    """The likeliest step of the continuous score; None without one."""
    explained: float | None
    """Probability of the deviations of the scores from what the continuous score foretells (up to
    a recalibration of two numbers); None without one."""
    foretold: tuple[float, ...] | None
    """Share of right answers of each rung, foretold from the continuous score."""
    split_rungs: int
    """Rungs whose seeds fall into two groups."""
    curves: dict[str, dict[str, float]]
    """Rival curves: `loglik`, `aicc`, and `left_out`, the log-likelihood of each rung foretold from
    the others, summed."""
    power: float | None
    """Probability that a step of 30 points would have been seen; None where one was."""
    scale: tuple[float, ...]
    shares: tuple[float, ...]
    """Share of right answers of each rung, over seeds."""
    band: tuple[tuple[float, float], ...] | None = None
    """Of `foretold`: where 90 % of such rungs' shares lie, by items and seeds."""
    trend: Trend | None = None
    """Its direction; None with fewer than four rungs."""
    big_bench: BigBench | None = None
    """For comparison only."""
    second_differences: tuple[float, ...] = ()
    """Of the shares: to be looked at, never the test."""

    def to_dict(self) -> dict[str, Any]:
        """As the command line prints it."""
        return asdict(self)


def emergence(
    tasks: Sequence[TaskScores], *, alpha: float = 0.05, draws: int = 400, seed: int = 0
) -> tuple[Emergence, ...]:
    """A verdict for each task.

    Args:
        alpha: Probability of calling a step where there is none, over all tasks together.
        draws: Simulations behind each probability; more where so many tasks need them, for no
            probability is below 1 / (draws + 1) before Holm's rule multiplies it.
    """
    rng = np.random.default_rng(seed)
    draws = max(draws, math.ceil(2 * len(tasks) / alpha))
    tested = [_Tested(task, draws, rng) if task.rungs >= FEWEST_RUNGS else None for task in tasks]
    holm = _holm([t.p_step for t in tested if t is not None])
    corrected = iter(holm)
    found = []
    for task, test in zip(tasks, tested, strict=True):
        if test is None:
            found.append(_described(task, _too_few(task)))
        else:
            found.append(_described(task, _judge(test, next(corrected), alpha, rng)))
    return tuple(found)


def _described(task: TaskScores, verdict: Emergence) -> Emergence:
    """With what is printed beside a verdict and decides nothing."""
    return replace(
        verdict,
        trend=trend_of(task),
        big_bench=big_bench(verdict.shares),
        second_differences=second_differences(verdict.shares),
    )


class _Tested:
    """The tests of one task, before verdicts are compared over tasks."""

    def __init__(self, task: TaskScores, draws: int, rng: np.random.Generator) -> None:
        self.task, self.draws = task, draws
        self.x = task.places()
        self.right, self.asked = task.right.sum(axis=1), task.asked.sum(axis=1)
        self.shares = self.right / self.asked
        self.splits = _splits(task)
        self.dispersion = seed_scatter(task)
        rungs = task.rungs
        self.smooth = curves_of(self.shares, rungs, steps=False, chance=task.chance)
        self.stepped = curves_of(self.shares, rungs, steps=True, chance=task.chance)
        null = fit_curves(self.right[None], self.asked, self.x, self.smooth)
        # Ends and links that are out of the question cost time in every simulation.
        able = null.loglik[0] > null.best_loglik[0] - _OUT_OF_THE_QUESTION * self.dispersion
        self.smooth = self.smooth.only(able)
        self.stepped = self.stepped.only(self.stepped.like(self.smooth))
        self.null = fit_curves(self.right[None], self.asked, self.x, self.smooth)
        self.alternative = fit_curves(self.right[None], self.asked, self.x, self.stepped)
        seen = self._gain(self.right[None])[0]
        self.simulated = self._gain(self.simulate(self.null.shares[0], draws, rng))
        self.p_step = (1 + int((self.simulated >= seen).sum())) / (1 + draws)

    def simulate(self, shares: Array, draws: int, rng: np.random.Generator) -> Array:
        """(draws, R) right answers of worlds with these shares and the seeds' scatter."""
        asked = self.task.asked[None]
        p = np.broadcast_to(shares[None, :, None], (draws, *self.task.asked.shape))
        if self.dispersion > 1.0:
            size = np.maximum((asked - self.dispersion) / (self.dispersion - 1.0), 1.0)
            p = rng.beta(np.maximum(p * size, 1e-6), np.maximum((1 - p) * size, 1e-6))
        drawn = rng.binomial(asked.astype(int), p)
        return np.asarray(drawn.sum(axis=2), dtype=np.float64)

    def _gain(self, right: Array) -> Array:
        """Log-likelihood that a step adds, (B,)."""
        without = fit_curves(right, self.asked, self.x, self.smooth).best_loglik
        with_step = fit_curves(right, self.asked, self.x, self.stepped).best_loglik
        return np.asarray(np.maximum(with_step - without, 0.0))

    def power(self, alpha: float, rng: np.random.Generator) -> float:
        """Probability that a step of WANTED_STEP in the middle would be seen."""
        shares = self.null.shares[0]
        half = len(shares) // 2
        room = WANTED_STEP if shares[half:].max() + WANTED_STEP < 1 else -WANTED_STEP
        lifted = np.clip(
            np.where(np.arange(len(shares)) >= half, shares + room, shares), 0.01, 0.99
        )
        bound = np.quantile(self.simulated, 1 - alpha)
        return float(np.mean(self._gain(self.simulate(lifted, 100, rng)) > bound))

    def step_between(self) -> tuple[tuple[float, float], float]:
        """Scales between which the step lies, and its size at the likeliest place."""
        loglik, step = self.alternative.loglik[0], self.stepped.step
        best = np.array([loglik[step == place].max() for place in range(1, self.task.rungs)])
        near = np.flatnonzero(best >= best.max() - 0.5 * 2.71 * self.dispersion) + 1
        scale = self.task.scale
        place = int(best.argmax()) + 1
        size = float(self.alternative.shares[0][place] - self.alternative.shares[0][place - 1])
        return (float(scale[near.min() - 1]), float(scale[near.max()])), size


def _judge(test: _Tested, p_step: float, alpha: float, rng: np.random.Generator) -> Emergence:
    task = test.task
    line, explained, foretold = None, None, None
    if task.logprob is not None:
        line = line_step(task.logprob, task.scale, test.draws, rng)
    if task.expected is not None:
        foretold, explained = _swap(test)
    stepped = p_step < alpha
    at, size = test.step_between() if stepped else (None, None)
    power = None if stepped else test.power(alpha, rng)
    common = Emergence(
        task=task.name, verdict="smooth", reason="", p_step=p_step, step_at=at, step_size=size,
        continuous_step=line, explained=explained,
        foretold=None if foretold is None else tuple(map(float, foretold)),
        band=None if foretold is None else _band(test, foretold),
        split_rungs=test.splits, curves=_rivals(test), power=power,
        scale=tuple(map(float, task.scale)), shares=tuple(map(float, test.shares)),
    )  # fmt: skip
    verdict, reason = _verdict(test, common, alpha)
    return replace(common, verdict=verdict, reason=reason)


def _verdict(test: _Tested, facts: Emergence, alpha: float) -> tuple[Verdict, str]:
    if test.splits >= 2:
        return "seed lottery", (
            f"in {test.splits} of {test.task.rungs} rungs the seeds fall into those that can and "
            "those that cannot"
        )
    line = facts.continuous_step
    smooth_line = line is not None and (line.p >= alpha or line.share < LEAST_STEP_SHARE)
    covered = facts.explained is not None and facts.explained >= 0.01
    flat = _flat_rungs(test.shares)
    if facts.step_at is not None and abs(facts.step_size or 0.0) >= LEAST_STEP:
        (low, high), points = facts.step_at, 100 * (facts.step_size or 0.0)
        step = f"a step of {points:.0f} points between {low:.3g} and {high:.3g}"
        if smooth_line and covered:
            return "metric effect", f"{step}, which the log-probabilities foretell without one"
        if line is None:
            said = "without log-probabilities an effect of the metric cannot be told from it"
        elif smooth_line:
            said = "the log-probabilities have none, but do not foretell it either"
        else:
            said = "the log-probabilities have it too"
        return "threshold", f"{step} (p = {facts.p_step:.2g}); {said}"
    if smooth_line and covered and flat and _improves_while_flat(test, flat):
        return "metric effect", (
            f"flat over {flat} of {test.task.rungs} rungs while the log-probabilities improve, "
            "and no step"
        )
    if facts.power is not None and facts.power < WANTED_POWER:
        more = int(
            np.ceil(np.median(test.task.asked) * (WANTED_POWER / max(facts.power, 0.05)) ** 2)
        )
        return "not enough data", (
            f"a step of {100 * WANTED_STEP:.0f} points would be seen with probability "
            f"{facts.power:.0%} only; about {more} items a seed, or more seeds, would decide"
        )
    return "smooth", f"no step (p = {facts.p_step:.2g})"


def _flat_rungs(shares: Array) -> int:
    """Rungs at the bottom before the rise, if they are enough to look as if it emerged; else 0."""
    rise = float(shares.max() - shares[0])
    if rise < LEAST_RISE:
        return 0
    above = np.flatnonzero(shares - shares[: len(shares) // 2].min() >= FLAT * rise)
    flat = int(above[0]) if len(above) else len(shares)
    return flat if flat >= FLAT_RUNGS * len(shares) else 0


def _improves_while_flat(test: _Tested, flat: int) -> bool:
    logprob = test.task.logprob
    if logprob is None:
        return False
    x = np.repeat(test.x[:flat], logprob.shape[1])
    y = logprob[:flat].ravel()
    known = np.isfinite(y)
    slope = stats.linregress(x[known], y[known])
    return bool(slope.slope > 0 and slope.pvalue < 0.01)


def _splits(task: TaskScores) -> int:
    """Rungs whose seeds fall into two groups, further apart than chance leaves them."""
    found = 0
    for right, asked in zip(task.right, task.asked, strict=True):
        there = asked > 0
        if there.sum() < 2:
            continue
        shares = np.sort(right[there] / asked[there])
        gaps = np.diff(shares)
        widest = int(gaps.argmax())
        ends = shares[[widest, widest + 1]]
        deviation = np.sqrt(
            (ends * (1 - ends) + 0.25 / asked[there].mean()).sum() / asked[there].mean()
        )
        found += bool(gaps[widest] > max(SPLIT_GAP, SPLIT_SIGMAS * deviation))
    return found


def _swap(test: _Tested) -> tuple[Array, float]:
    """The scores foretold from the continuous one, and how well they agree.

    Exact matches of greedy answers are not the probability of the right answer but follow it: two
    numbers, fitted, turn the one into the other (logit p = a + b·logit e).
    """
    expected = test.task.expected
    if expected is None:
        raise ValueError("there is no continuous score")
    e = np.clip(np.nanmean(expected, axis=1), 1e-4, 1 - 1e-4)
    z = np.log(e / (1 - e))
    design = np.stack([np.ones_like(z), z], axis=1)
    theta = np.array([0.0, 1.0])
    for _ in range(50):
        p = np.clip(1 / (1 + np.exp(-design @ theta)), 1e-6, 1 - 1e-6)
        weight = test.asked * p * (1 - p)
        info = design.T @ (weight[:, None] * design) + 1e-6 * np.eye(2)
        theta = theta + np.clip(
            np.linalg.solve(info, design.T @ (test.right - test.asked * p)), -2, 2
        )
    p = np.clip(1 / (1 + np.exp(-design @ theta)), 1e-6, 1 - 1e-6)
    chi2 = ((test.right - test.asked * p) ** 2 / (test.asked * p * (1 - p) + 0.25)).sum()
    freedom = max(len(z) - 2, 1)
    return p, float(stats.chi2.sf(chi2 / test.dispersion, freedom))


def _band(test: _Tested, foretold: Array) -> tuple[tuple[float, float], ...]:
    """Where 90 % of the rungs' shares lie, were the foretold ones the truth."""
    half = 1.645 * np.sqrt(foretold * (1 - foretold) / test.asked * test.dispersion)
    low, high = np.clip(foretold - half, 0, 1), np.clip(foretold + half, 0, 1)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def _rivals(test: _Tested) -> dict[str, dict[str, float]]:
    """Rival curves by likelihood, AICc, and rungs foretold from the others."""
    rungs = test.task.rungs
    level = np.full((1, rungs), float(test.right.sum() / test.asked.sum()))
    found = {"constant": _score(test, None, level, 1)}
    for name, curves, count in (("smooth", test.smooth, 4), ("step", test.stepped, 6)):
        fits = test.null if name == "smooth" else test.alternative
        found[name] = _score(test, curves, fits.shares, count)
    return found


def _score(test: _Tested, curves: Curves | None, shares: Array, count: int) -> dict[str, float]:
    def loglik(p: Array, rungs: Array) -> float:
        p = np.clip(p, 1e-6, 1 - 1e-6)
        both = test.right * np.log(p) + (test.asked - test.right) * np.log(1 - p)
        return float(both[rungs].sum()) / test.dispersion

    rungs = test.task.rungs
    all_rungs = np.ones(rungs, dtype=bool)
    left_out = 0.0
    for rung in range(rungs):
        kept = np.where(np.arange(rungs) == rung, 0.0, 1.0)
        if curves is None:
            p = np.full(rungs, float((kept * test.right).sum() / (kept * test.asked).sum()))
        else:
            asked = test.asked * np.maximum(kept, 1e-9)
            p = fit_curves(
                (test.right * np.maximum(kept, 1e-9))[None], asked, test.x, curves
            ).shares[0]
        left_out += loglik(p, np.arange(rungs) == rung)
    value = loglik(shares[0], all_rungs)
    spare = max(rungs - count - 1, 1)
    aicc = 2 * count - 2 * value + 2 * count * (count + 1) / spare
    return {"loglik": value, "aicc": aicc, "left_out": left_out}


def _holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) corrected probabilities, in the order given."""
    order = np.argsort(p)
    corrected, worst = [0.0] * len(p), 0.0
    for rank, index in enumerate(order.tolist()):
        worst = max(worst, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = worst
    return corrected


def _too_few(task: TaskScores) -> Emergence:
    shares = task.right.sum(axis=1) / task.asked.sum(axis=1)
    return Emergence(
        task=task.name, verdict="not enough data",
        reason=f"{task.rungs} rungs; a step needs {FEWEST_RUNGS} to be told from a slope",
        p_step=None, step_at=None, step_size=None, continuous_step=None, explained=None,
        foretold=None, split_rungs=0, curves={}, power=None,
        scale=tuple(map(float, task.scale)), shares=tuple(map(float, shares)),
    )  # fmt: skip


def verdicts(found: Sequence[Emergence]) -> Mapping[str, int]:
    """How many tasks have each verdict."""
    counts: dict[str, int] = {}
    for each in found:
        counts[each.verdict] = counts.get(each.verdict, 0) + 1
    return counts
