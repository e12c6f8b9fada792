"""How far a forecast can be off: the noise of the runs and the distribution of the laws they allow.

Not for point estimates (fit). The formulas, on residuals r of the log loss:

1. **Noise.** sigma² is the run-to-run variance of ln loss. With S = sum of squared residuals about
   the weak-prior fit of the gamma form and k its effective number of parameters
   (trace of H (H + P)^-1), sigma² | table ~ (nu0·s0² + S) / chi²(nu0 + R - k): the posterior under
   a weak belief of nu0 observations that runs differ by s0 (or by the table's own standard errors
   of its losses, if larger). Few runs leave few degrees of freedom,
   so forecasts get Student-like tails by construction.
2. **Parameters and form together.** One draw refits the gamma form, which contains the additive
   one (g = 1), to ln loss + sigma_b·normal under priors whose centres are jittered by their own
   width: randomised maximum a posteriori, exact for a linear model (Oliver et al. 1996; Bardsley et
   al. 2014). The spread of g *is* the uncertainty of the form; the weak priors on the exponents
   keep a draw finite where the runs determine E or an exponent badly.
3. **Forecast.** ln L of draw b at (N, D) + normal·sqrt(sigma_b² + (drift·ln x)²), with x how many
   times the target's compute exceeds the largest run's: the part of a model error that no draw of
   this family shows, and that grows with distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from isoflop.laws.forms import GAMMA, NO_FLOOR, Array, Design, Form
from isoflop.laws.records import RunTable
from isoflop.laws.solver import Prior, Problem, minimise

# Weak beliefs about the coordinates (ln E, ln u, ln v, ln p, ln q, ln g) as centre and width.
# ln E is relative to the lowest losses; u and v to the loss above it. Exponents: Hoffmann et al.
# 2022 0.34 and 0.28, Besiroglu et al. 2024 0.35 and 0.37, Muennighoff et al. 2023 0.35 both.
EXPONENT = (np.log(0.35), 0.4)
COMBINATION = (np.log(0.7), 0.4)
FLOOR = (np.log(0.55), 0.4)
ENTROPY = (np.log(0.4), 0.2)
"""E in bits per byte of text, where the table says what that is in nats per token: 0.27 to 0.6
within two widths. The upper end is prose (Hoffmann et al. 2022: 1.69 nats at about 4.3 bytes per
token, 0.57; Besiroglu et al. 2024: 1.82 nats, 0.61); code is far more regular. Small models end two
to four times above it, where a table alone cannot tell E from the bend of the power laws."""
NOISE_BELIEF = (1.0, 0.001)
"""nu0 and s0: runs that differ by their seed alone end 0.1 % apart, small ones more."""
DRIFT = (0.001, 0.5)
"""Model error per e-fold of compute: at least the first, and the second times run_to_run."""
FLOORLESS_DRIFT = 0.003
"""At least this much where the form has no floor E: its draws do not show that error."""
SCALE = 1.0
"""Width of the belief about ln u and ln v."""
ROBUST = 3.0
"""Residuals beyond this many sigma pull with constant force: a diverged run is not followed."""
QUANTILES = 15
STRATA = np.array([NormalDist().inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES)])


@dataclass(frozen=True)
class Noise:
    """What the residuals say about a single run."""

    run_to_run: float
    """Standard deviation of ln loss between runs that differ by chance alone."""
    degrees: float
    """Degrees of freedom behind it, prior included."""
    drift: float
    """Standard deviation of the model error of ln loss per e-fold of compute beyond the largest
    run."""
    relevance: float = 0.0
    """kappa: the variance of ln loss grows as exp(kappa·h) with the excess h over `low`."""
    low: float = 1.0
    """Loss, of the low end of the table, at which h is 0."""
    widen: float = 1.0
    """Factor on every spread, from the calibration over other tables."""
    own: float = 1.0
    """Factor on every spread, from this table's own large runs (`averaging.own_width`)."""

    def at(self, log_loss: float) -> float:
        """How many times noisier than at the low end runs of this ln loss are."""
        return float(np.exp(0.5 * self.relevance * max(log_loss - np.log(self.low), 0.0)))


@dataclass(frozen=True)
class Posterior:
    """Draws from the laws that the table allows, in coordinates of the design."""

    theta: Array
    """(B, K) of the form drawn."""
    sigma: Array
    """(B,): run-to-run standard deviation of each draw."""


def excess(loss: Array, low: float) -> Array:
    """h (R,): by how much of a log each loss lies above `low`; 0 below it."""
    return np.asarray(np.maximum(np.log(loss / low), 0.0))


def believed_noise(table: RunTable) -> tuple[float, float]:
    """nu0 and s0 of the belief about the run-to-run noise (`NOISE_BELIEF`)."""
    nu0, s0 = NOISE_BELIEF
    known = table.loss_stderr / table.loss
    if not np.isnan(known).all():
        s0 = max(s0, float(np.sqrt(np.nanmean(known**2))))
    return nu0, s0


def prior_moments(
    form: Form, table: RunTable, strength: float = 1.0, floor_width: float = FLOOR[1]
) -> tuple[Array, Array]:
    """Centre and width (K,) of the weak beliefs, for this table's losses.

    Args:
        strength: Factor on the precision of what the literature says: exponents, g and E.
        floor_width: Of the belief about ln E, where the text's entropy is not known.
    """
    # The 10 % quantile: one run of another kind far below the rest must not set the scale of E.
    low, middle = (float(q) for q in np.quantile(table.loss, [0.1, 0.5]))
    log_floor = np.log(low) + FLOOR[0]
    nats = table.loss / table.bits_per_byte
    if not np.isnan(nats).all():
        known = np.log(float(np.nanmedian(nats))) + ENTROPY[0]
        if known < np.log(low):  # else these are losses of something else than plain text
            log_floor, floor_width = known, ENTROPY[1]
    if not form.floor:
        log_floor, floor_width = np.log(low * NO_FLOOR), 1e-2
    above = max(middle - np.exp(log_floor), 1e-3 * middle)
    centre = [log_floor, np.log(above / 2), np.log(above / 2)]
    width = [floor_width, SCALE, SCALE, EXPONENT[1], EXPONENT[1]]
    centre += [EXPONENT[0], EXPONENT[0]]
    if form.free_combination:
        centre, width = [*centre, COMBINATION[0]], [*width, COMBINATION[1]]
    loosened = np.array(width)
    loosened[3:] /= np.sqrt(strength)
    if form.floor:
        loosened[0] /= np.sqrt(strength)
    return np.array(centre), loosened


def weak_prior(
    form: Form, table: RunTable, sigma: float, delta: float = np.inf, strength: float = 1.0
) -> Prior:
    """The weak beliefs in the units of the solver's objective, for noise `sigma`.

    A squared residual is worth sigma²; one in the linear part of Huber's loss about delta·sigma.
    """
    centre, width = prior_moments(form, table, strength)
    return Prior(centre, sigma * min(sigma, delta) / width**2)


def measure_noise(
    table: RunTable, design: Design, form: Form = GAMMA, strength: float = 1.0
) -> Noise:
    """Estimate the run-to-run noise from the residuals of the weak-prior fit of `form`."""
    sigma = 3e-3
    nu0, s0 = believed_noise(table)
    start = prior_moments(form, table)[0][None]
    degrees = nu0
    for _ in range(12):
        theta = _settle(table, design, form, sigma, start, strength)
        evaluation = form.evaluate(theta, design)
        residual = (evaluation.log_loss - np.log(table.loss))[0]
        clipped = np.clip(residual, -ROBUST * sigma, ROBUST * sigma)
        jac = evaluation.jacobian[0]
        information = (jac * table.weight) @ jac.T
        prior = np.diag(weak_prior(form, table, sigma, strength=strength).precision)
        used = float(np.trace(np.linalg.solve(information + prior, information)))
        degrees = nu0 + max(len(residual) - used, 0.0)
        new = float(np.sqrt((nu0 * s0**2 + np.sum(table.weight * clipped**2)) / degrees))
        start = theta
        if abs(new - sigma) < 1e-3 * sigma:
            sigma = new
            break
        sigma = new
    least = DRIFT[0] if form.floor else FLOORLESS_DRIFT
    return Noise(sigma, degrees, max(least, DRIFT[1] * sigma))


def _settle(
    table: RunTable, design: Design, form: Form, sigma: float, start: Array, strength: float
) -> Array:
    problem = Problem(
        form,
        design,
        np.log(table.loss),
        table.weight,
        np.array(ROBUST * sigma),
        weak_prior(form, table, sigma, strength=strength),
    )
    return minimise(problem, start).theta


def posterior(
    table: RunTable,
    design: Design,
    noise: Noise,
    count: int,
    rng: np.random.Generator,
    form: Form = GAMMA,
    strength: float = 1.0,
) -> Posterior:
    """Draw `count` laws that the table allows (docstring of the module, points 1 and 2)."""
    start = prior_moments(form, table)[0][None]
    point = _settle(table, design, form, noise.run_to_run, start, strength)
    runs = len(table.loss)
    sigma = noise.run_to_run * np.sqrt(noise.degrees / rng.chisquare(noise.degrees, count))
    spread = sigma[:, None] / np.sqrt(table.weight)
    shaken = np.log(table.loss) + spread * rng.standard_normal((count, runs))
    centre, width = prior_moments(form, table, strength)
    prior = Prior(
        centre + width * rng.standard_normal((count, form.size)), sigma[:, None] ** 2 / width**2
    )
    problem = Problem(form, design, shaken, table.weight, ROBUST * sigma[:, None], prior)
    found = minimise(problem, np.repeat(point, count, axis=0), iterations=40)
    return Posterior(found.theta, sigma)


def quantiles(
    log_loss: Array, sigma: Array, drift: float, distance: float, level: float
) -> tuple[float, float, float]:
    """Lower end, median and upper end of the forecast.

    Args:
        log_loss: ln L of each draw at the target, (B,).
        sigma: Run-to-run noise of each draw, (B,).
        drift: Of `Noise`.
        distance: ln of the target's compute over the largest run's; 0 within.
        level: Probability between the ends.
    """
    spread = np.hypot(sigma, drift * max(distance, 0.0))
    sample = (log_loss[:, None] + spread[:, None] * STRATA).ravel()
    tail = (1.0 - level) / 2.0
    low, middle, high = np.exp(np.quantile(sample, [tail, 0.5, 1.0 - tail]))
    return float(low), float(middle), float(high)
