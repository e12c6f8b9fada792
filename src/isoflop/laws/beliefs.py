"""What the weak beliefs did to a fit: its forecast with and without; not the beliefs (interval).

A forecast far beyond a table rests on what the literature says of exponents and floor as well as on
the runs. How much shows when the fit is made again with beliefs `LOOSE` as precise (five times as
wide; with none at all some draws would not be finite): the losses at ten times the table's largest
compute are compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoflop.laws.averaging import Weighed, weigh
from isoflop.laws.forms import Array, Design, Form
from isoflop.laws.interval import ROBUST, measure_noise, weak_prior
from isoflop.laws.records import RunTable
from isoflop.laws.solver import Problem, minimise

LOOSE = 0.04
"""Precision of the literature's beliefs where they are switched off: five times as wide."""
REACH = 10.0
"""Multiple of the largest run's compute at which the forecasts are compared."""
NOTABLE = 0.01
"""Share of the loss from which on the effect is worth a warning."""


@dataclass(frozen=True)
class Effect:
    """The forecast of one run under both beliefs."""

    params: float
    tokens: float
    loss: float
    loss_loose: float
    """With the beliefs five times as wide."""
    spread_percent: float
    """Standard deviation of the loss, in percent, from the coordinates alone (Laplace)."""
    spread_loose_percent: float

    @property
    def shift_percent(self) -> float:
        """By how much the beliefs raised the forecast."""
        return 100.0 * (self.loss / self.loss_loose - 1.0)

    @property
    def warning(self) -> str | None:
        """What to say of it, or None where the runs speak for themselves."""
        if abs(self.shift_percent) < 100.0 * NOTABLE:
            return None
        return (
            f"the weak beliefs about the form's numbers move the forecast at {REACH:g} times the "
            f"largest compute by {self.shift_percent:+.1f} % (spread {self.spread_percent:.1f} % "
            f"with them, {self.spread_loose_percent:.1f} % with beliefs five times as wide)"
        )


def effect_of_beliefs(
    table: RunTable, design: Design, form: Form, weighed: Weighed | None = None
) -> Effect:
    """Fit with and without the beliefs and compare.

    Args:
        form: Fitted, unless it is the average of all, whose members with the beliefs are `weighed`.
    """
    product = REACH * float((table.params * table.tokens).max())
    ratio = float(table.params.max() / table.tokens.max())
    params, tokens = np.sqrt(product * ratio), np.sqrt(product / ratio)
    if weighed is not None:
        loss, spread = _average(weighed, params, tokens)
        loose, spread_loose = _average(weigh(table, design, LOOSE), params, tokens)
    else:
        (loss, spread), (loose, spread_loose) = (
            _single(table, design, form, strength, params, tokens) for strength in (1.0, LOOSE)
        )
    return Effect(
        float(params),
        float(tokens),
        float(np.exp(loss)),
        float(np.exp(loose)),
        100.0 * float(spread),
        100.0 * float(spread_loose),
    )


def _average(weighed: Weighed, params: float, tokens: float) -> tuple[float, float]:
    """ln loss and its standard deviation over the members, with what lies between them."""
    seen = [f.forecast(np.array([params]), np.array([tokens])) for f in weighed.settled]
    log_loss = np.stack([s[0][:, 0] for s in seen])
    variance = np.stack([s[1][:, 0] for s in seen])
    middle = float(np.sum(weighed.share * log_loss))
    whole = np.sum(weighed.share * (variance + (log_loss - middle) ** 2))
    return middle, float(np.sqrt(whole))


def _single(
    table: RunTable, design: Design, form: Form, strength: float, params: float, tokens: float
) -> tuple[float, float]:
    sigma = measure_noise(table, design, form, strength).run_to_run
    prior = weak_prior(form, table, sigma, strength=strength)
    width = np.array(ROBUST * sigma)
    problem = Problem(form, design, np.log(table.loss), table.weight, width, prior)
    theta = minimise(problem, prior.centre[None]).theta
    jac = form.evaluate(theta, design).jacobian[0]
    information = ((jac * table.weight) @ jac.T + np.diag(prior.precision)) / sigma**2
    goal = form.evaluate(theta, design.at(np.array([params]), np.array([tokens])))
    row: Array = goal.jacobian[0, :, 0]
    return float(goal.log_loss[0, 0]), float(np.sqrt(row @ np.linalg.solve(information, row)))
