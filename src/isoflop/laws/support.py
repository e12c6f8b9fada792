"""Whether a table supports its law: warnings, the verdict, and the run that would help most.

Not for fitting, nor for widening intervals: what is unsupported is said, not priced in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isoflop.laws.forms import GAMMA, Array, Design, Form, get_form, printed_loss
from isoflop.laws.interval import excess
from isoflop.laws.predict import AUTO, FLOPS_PER_PARAMETER_TOKEN, Law
from isoflop.laws.records import RunTable
from isoflop.laws.solver import bounds

FEWEST = 3
"""Sizes, and horizons, below which an exponent and a floor cannot be told apart."""
SAME = 0.03
"""Sizes or horizons closer than this (in logs) count as one."""
TOGETHER = 0.995
"""Correlation of ln N and ln D beyond which their effects cannot be separated."""
OUTLIER = 5.0
"""Residual, in run-to-run standard deviations, beyond which a run is named."""
MISFIT = 0.1
"""Share of such runs beyond which it is the form that does not fit."""
PLAUSIBLE = (0.05, 1.0)
"""Exponents of one axis alone; published ones lie between 0.05 (Kaplan) and 0.6."""
EVEN_RELEVANCE = 8.0
"""Runs far above the low end scatter for other reasons (`averaging`) and count for less."""
JAGGED = (0.01, 4.0)
"""A size is out of line when it lies this far, in ln loss and in standard errors of its own runs,
from the law through its neighbours."""
REACH = 10.0
"""Multiple of the largest run's compute at which the next run is to sharpen the forecast."""


@dataclass(frozen=True)
class NextRun:
    """A run worth making."""

    params: float
    tokens: float
    flops: float
    gain: float
    """Share of the forecast's variance at 10 × the largest run's compute that it removes."""


def judge(law: Law, table: RunTable, theta: Array, design: Design) -> Law:
    """The law with its warnings and verdict filled in; theta (K,) is the point estimate."""
    warnings = [*table.notes, *_rejections(table)]
    reasons = _reasons(table, law, theta)
    below = table.loss < law.parameters["E"]
    if below.any():
        warnings.append(
            f"{int(below.sum())} of {len(table)} runs lie below the fitted floor "
            f"E = {law.parameters['E']:.4f} (e.g. {table.run_id[int(np.argmax(below))]}): either "
            "they are of another kind (data, tokenizer, unit) or the fit is wrong"
        )
        if below.mean() > 0.1:
            reasons.append("more than a tenth of the runs lie below the fitted floor E")
    far = _outliers(law, table)
    if far:
        named = ", ".join(f"{table.run_id[i]} ({100 * r:+.1f} %)" for i, r in far[:3])
        warnings.append(
            f"{len(far)} of {len(table)} runs lie more than {OUTLIER:g} standard deviations from "
            f"the law: {named}; look for divergence, a short warm-up or another recipe"
        )
    if len(far) > MISFIT * len(table):
        other = "; try the gamma form" if law.form == "chinchilla" else ""
        reasons.append(f"the form misses {len(far)} of {len(table)} runs{other}")
    uneven = _uneven(law, table)
    if uneven:
        named = ", ".join(f"{size:.3g} ({100 * np.expm1(gap):+.1f} %)" for size, gap in uneven[:3])
        reasons.append(
            f"sizes lie off the line through their neighbours as no smooth law can: {named} "
            "parameters; they look tuned differently"
        )
    if _form(law).floor and law.parameters["E"] < 0.05 * table.loss.min():
        warnings.append(
            "the fitted floor E is almost zero: the runs are too far from it to show it, or the "
            "loss is not in nats per token"
        )
    if not reasons:
        return replace(law, warnings=tuple(warnings), verdict="supported")
    best = next_run(law, table)
    helps = (
        f"The run that would help most: {best.params:.3g} parameters on {best.tokens:.3g} tokens "
        f"({best.flops:.2g} FLOPs)"
    )
    return replace(
        law, warnings=tuple(warnings), verdict=f"unsupported: {'; '.join(reasons)}. {helps}"
    )


def _form(law: Law) -> Form:
    return GAMMA if law.form == AUTO else get_form(law.form)


def levels(values: Array) -> Array:
    """The distinct values (L,), those within 3 % of each other counted once."""
    ordered = np.sort(values)
    starts = np.concatenate([[True], np.diff(np.log(ordered)) > SAME])
    return np.asarray(ordered[starts])


def _reasons(table: RunTable, law: Law, theta: Array) -> list[str]:
    form = _form(law)
    reasons = []
    sizes, horizons = len(levels(table.params)), len(levels(table.tokens))
    if sizes < FEWEST:
        reasons.append(f"{sizes} sizes cannot tell an exponent of N from the floor E")
    if horizons < FEWEST:
        reasons.append(f"{horizons} horizons cannot tell an exponent of D from the floor E")
    if len(table) <= form.size:
        reasons.append(
            f"{len(table)} runs for {form.size} parameters leave nothing to judge the fit by"
        )
    if sizes > 1 and horizons > 1:
        together = float(np.corrcoef(np.log(table.params), np.log(table.tokens))[0, 1])
        if abs(together) > TOGETHER:
            reasons.append(
                "sizes and horizons change in step, so their effects cannot be separated"
            )
    lower, upper = bounds(form)
    names = ("E", "A", "B", *form.parameters[3:])
    stuck = [n for n, t, a, b in zip(names, theta, lower, upper, strict=True) if t <= a or t >= b]
    if stuck:
        reasons.append(f"the fit runs to the limit of {', '.join(stuck)}")
    return reasons + _implausible(law)


def _rejections(table: RunTable) -> list[str]:
    if not table.rejected:
        return []
    count, most = len(table.rejected), 5
    shown = "; ".join(f"{r.where}: {r.reason}" for r in table.rejected[:most])
    more = f"; and {count - most} more" if count > most else ""
    return [f"{count} row{'s' * (count > 1)} left out: {shown}{more}"]


def _fitted(law: Law, table: RunTable) -> Array:
    values = np.array([list(law.parameters.values())])
    return np.array(
        [printed_loss(values, n, d)[0] for n, d in zip(table.params, table.tokens, strict=True)]
    )


def _uneven(law: Law, table: RunTable) -> list[tuple[float, float]]:
    """Sizes whose runs lie off what their neighbours' residuals say, and by how much in ln loss.

    A form that bends wrongly leaves residuals that change smoothly with size; a size with a better
    or worse recipe than its neighbours does not. Each inner size's mean residual is compared with
    the line through its neighbours' means, in standard errors from the spread within sizes.
    """
    residual = np.log(table.loss / _fitted(law, table))
    weight = np.exp(-EVEN_RELEVANCE * excess(table.loss, float(np.quantile(table.loss, 0.05))))
    ordered = levels(table.params)
    member = np.argmin(np.abs(np.log(table.params[:, None] / ordered)), axis=1)
    count = np.bincount(member, minlength=len(ordered))
    total = np.bincount(member, weight, len(ordered))
    kept = np.flatnonzero((count >= 2) & (total >= 1.0))
    if len(kept) < FEWEST + 1:
        return []
    mean = np.bincount(member, weight * residual, len(ordered)) / np.maximum(total, 1e-300)
    used = np.isin(member, kept)
    within = float(np.sum((weight * (residual - mean[member]) ** 2)[used]))
    spare = float(weight[used].sum()) - len(kept)
    if spare < 1.0:
        return []
    variance = within / spare / total[kept]
    x, m = np.log(ordered[kept]), mean[kept]
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    gap = m[1:-1] - (1.0 - share) * m[:-2] - share * m[2:]
    error = np.sqrt(variance[1:-1] + (1.0 - share) ** 2 * variance[:-2] + share**2 * variance[2:])
    least, sure = JAGGED
    far = np.flatnonzero((np.abs(gap) > least) & (np.abs(gap) > sure * error))
    found: list[int] = []
    for i in far[np.argsort(-np.abs(gap[far]))]:
        # The neighbours of a size out of line seem to be out of line the other way.
        if all(abs(i - j) > 1 for j in found):
            found.append(int(i))
    return [(float(ordered[kept][i + 1]), float(gap[i])) for i in found]


def _outliers(law: Law, table: RunTable) -> list[tuple[int, float]]:
    """Row and log residual of the runs far from the law, the farthest first."""
    fitted = _fitted(law, table)
    residual = np.log(table.loss / fitted)
    noise = law.noise.run_to_run * np.exp(0.5 * law.noise.relevance * excess(fitted, law.noise.low))
    far = np.flatnonzero(np.abs(residual) > OUTLIER * noise)
    ranked = far[np.argsort(-np.abs(residual[far]))]
    return [(int(i), float(np.expm1(residual[i]))) for i in ranked]


def _implausible(law: Law) -> list[str]:
    g = law.parameters.get("g", 1.0)
    found = []
    for axis, exponent in zip("ND", list(law.parameters.values())[3:5], strict=True):
        if not PLAUSIBLE[0] <= exponent * g <= PLAUSIBLE[1]:
            found.append(
                f"the exponent of {axis}, {exponent * g:.3f}, is far from any published one: check "
                "that the loss is in nats per token and that every run's schedule ended"
            )
    return found


def next_run(law: Law, table: RunTable, flops: float | None = None) -> NextRun:
    """The affordable run that would sharpen a forecast at 10 × the largest run's compute most.

    For each candidate the share of the forecast's variance that observing it removes is
    cov² / (var · (var_candidate + noise²)), from the draws (the linear-Gaussian update). A table
    short of sizes (or horizons) is offered only new sizes (or horizons).

    Args:
        flops: The most the run may cost; the largest run's compute when omitted.
    """
    budget = float(flops or law.domain["flops"][1])
    reach = REACH * law.domain["flops"][1] / FLOPS_PER_PARAMETER_TOKEN
    ratio = law.domain["params"][1] / law.domain["tokens"][1]
    goal_n, goal_d = float(np.sqrt(reach * ratio)), float(np.sqrt(reach / ratio))
    draws = law.allowed[:, :6]
    goal = _centred(np.log(printed_loss(draws, goal_n, goal_d)))
    best: NextRun | None = None
    known_n, known_d = levels(table.params), levels(table.tokens)
    for params in _candidates(known_n):
        for tokens in _candidates(known_d):
            cost = FLOPS_PER_PARAMETER_TOKEN * params * tokens
            if cost > budget * 1.001:
                continue
            seen = _centred(np.log(printed_loss(draws, params, tokens)))
            both = float(goal @ seen) / len(goal)
            variance = float(seen @ seen) / len(goal) + law.noise.run_to_run**2
            gain = both**2 / (variance * float(goal @ goal) / len(goal))
            if best is None or gain > best.gain:
                best = NextRun(float(params), float(tokens), cost, gain)
    return best or NextRun(
        law.domain["params"][0],
        law.domain["tokens"][0],
        FLOPS_PER_PARAMETER_TOKEN * law.domain["params"][0] * law.domain["tokens"][0],
        0.0,
    )


def _candidates(known: Array) -> Array:
    """Values (M,) to try along one axis: among the known ones and up to a factor 4 above."""
    tried = np.geomspace(known[0], known[-1] * 4.0, 17)
    if len(known) >= FEWEST:
        return tried
    near = np.min(np.abs(np.log(tried[:, None] / known)), axis=1)
    return np.asarray(tried[near > np.log(1.5)])


def _centred(values: Array) -> Array:
    return np.asarray(values - values.mean())
