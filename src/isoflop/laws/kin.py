"""A run's end from finished runs of other sizes; not from its own curve's form (in_flight).

From any step to the end of one schedule, runs of different sizes fall by nearly the same share of
their loss, and the share changes evenly with ln size: over the curves of 25M, 100M and 400M
parameters of Luo et al. 2025 it is 20.1, 22.5 and 25.0 % in ln loss from a tenth of a cosine on. A
straight line through the others misses the third's by 0.2 % on the mean of nine schedules, where
the parameters of its curve, carried along lines of their own, miss the end by 0.7 %: their errors
add up, and those of the falls cancel. So

    ln L(end) = mean over the newest points of [ln loss(t) + fall(t)]

fall(t) = what the curve laws of the other sizes say of ln L(end) - ln L(t) under this schedule,
with the misfit of their own curves after the warm-up (`transient`), on a line in ln size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from isoflop.laws.curve import CurveLaw
from isoflop.laws.curve_fit import Belief, Curve, scatter, transient
from isoflop.laws.forms import Array
from isoflop.laws.schedule_terms import Schedule, terms

NEWEST = 0.25
"""Share of the points so far whose mean is the level that the fall starts from."""
FEWEST = 3
BINS = 32
OFF_LINE = 0.01
"""How far a size's fall lies from the line, as a share of the fall."""
SLOPE = 0.1
"""Believed change of the fall per e-fold of size, as a share of the fall: 0.05 to 0.1 by the same
curves. It decides where there is only one other size."""
FORM_ERROR = 3e-3
"""Error of the curve laws' form on the fall, in ln loss, where the whole schedule is still to come;
it shrinks as slowly as the fourth root of the steps left, for the falls of the rate come last."""


@dataclass(frozen=True)
class KinBelief(Belief):
    """A belief about the terms, with the curve laws of other sizes that it came from."""

    laws: tuple[CurveLaw, ...] = field(default=(), kw_only=True)
    distance: tuple[float, ...] = field(default=(), kw_only=True)
    """ln of each law's size over the run's."""


def outlook(curve: Curve, known: Belief) -> tuple[float, float] | None:
    """ln of the final loss and its variance; None where the belief has no laws with sizes.

    Args:
        curve: The points so far, after the warm-up; its schedule is that of the whole run.
    """
    if not isinstance(known, KinBelief) or not known.laws:
        return None
    count = min(len(curve.step), max(FEWEST, round(NEWEST * len(curve.step))))
    bins = min(count, BINS)
    steps, level = (
        np.array([part.mean() for part in np.array_split(values[-count:], bins)])
        for values in (curve.step, np.log(curve.loss))
    )
    found = np.array([_fall(law, curve.schedule, steps) for law in known.laws])
    fall, variance = _line(found[:, 0], found[:, 1], np.array(known.distance))
    left = 1.0 - float(curve.step[-1]) / curve.schedule.end
    form = FORM_ERROR**2 * np.sqrt(max(left, 0.0))
    noise = scatter(curve.loss) ** 2 / count
    return float(level.mean()) + fall, variance + noise + form


def _fall(law: CurveLaw, schedule: Schedule, steps: Array) -> tuple[float, float]:
    """ln L(end) - ln L, averaged over `steps` (R,), of one size; and its standard deviation."""
    peak = law.domain["learning_rate"][1]
    ready = terms(schedule, np.append(steps, schedule.end), peak=peak, unit=1.0)
    loss, jacobian = ready.evaluate(law.theta)
    early = law.noise.get("transient", 0.0) * transient(steps, schedule.risen)
    rows = jacobian / loss[:, None]
    row = rows[-1] - rows[:-1].mean(axis=0)
    return (
        float(np.log(loss[-1]) - np.mean(np.log(loss[:-1]) + early)),
        float(np.sqrt(row @ law.covariance @ row)),
    )


def _line(falls: Array, spreads: Array, distance: Array) -> tuple[float, float]:
    """The fall at distance 0 and its variance: a weighted line (S points), its slope believed
    to be 0 within SLOPE."""
    scale = float(np.abs(falls).mean())
    weight = 1.0 / (spreads**2 + (OFF_LINE * scale) ** 2 + 1e-12)
    design = np.stack([np.ones_like(distance), distance])
    information = (design * weight) @ design.T
    information[1, 1] += 1.0 / (SLOPE * scale + 1e-6) ** 2
    covariance = np.linalg.inv(information)
    value = float((covariance @ (design @ (weight * falls)))[0])
    return value, float(covariance[0, 0]) + (OFF_LINE * scale) ** 2
