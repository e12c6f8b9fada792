"""The loss of compute-optimal runs as a function of compute alone; not for any other run.

    L*(C) = E + A·C^-g

through the lowest points of a table's IsoFLOP slices (`isoflop.minima`). With the additive surface
the exponent is g = alpha·beta/(alpha + beta) (Hoffmann et al. 2022, eq. 4 put into eq. 10). It has
three parameters where a surface has five, and asks nothing of runs far from the optimum, so for
compute-optimal targets it is the safer forecast; it says nothing of over-trained ones.

Fitted like `interval`'s laws: coordinates (ln E, ln A·C0^-g, ln g) with C0 the largest budget, weak
beliefs, variance growing with the excess above the lowest minima as in `averaging`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.calibration import Calibration, shipped
from isoflop.laws.family import Beliefs, Family, check_level, fit_curves, named
from isoflop.laws.forms import Array
from isoflop.laws.interval import FLOOR, NOISE_BELIEF, excess, quantiles
from isoflop.laws.isoflop import Exponents, Minimum, exponents_of, minima
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Optimal, Prediction
from isoflop.laws.records import RunTable

NAMES = ("E", "A", "g")
FORMULA = "E + A*C^-g"
EXPONENT = (np.log(0.16), 0.35)
"""Belief about ln g: Hoffmann et al. 2022 0.154, Besiroglu et al. 2024 0.178, Kaplan et al. 2020
0.050 without E."""
SCALE = 1.0
FARTHEST = 4.0
"""Widths of its belief that a drawn coordinate may lie from the belief's centre."""
RELEVANCE = 16.0
FEWEST = 4


@dataclass(frozen=True)
class FrontierLaw(Family):
    """L*(C), with the regression of N* on C beside it."""

    NEEDS = ("widen", "sigma", "drift", "exponents")

    def predict(self, flops: float, level: float = 0.9) -> Prediction:
        """The lowest loss that a budget can buy, with its interval.

        Raises:
            TableError: `flops` is not positive, or `level` not between 0 and 1.
        """
        if not (np.isfinite(flops) and flops > 0.0):
            raise TableError(f"flops must be positive, not {flops:g}")
        check_level(level)
        e, big_a, g = self.parameters.values()
        loss = float(e + big_a * flops**-g)
        draws = np.log(self.draws[:, 0] + self.draws[:, 1] * flops ** -self.draws[:, 2])
        centre, widen = float(np.median(draws)), float(self.noise["widen"])
        low, _, high = quantiles(
            centre + widen * (draws - centre),
            widen * np.array(self.noise["sigma"]),
            widen * float(self.noise["drift"]),
            float(np.log(flops / self.domain["flops"][1])),
            level,
        )
        beyond = {"flops": max(flops / self.domain["flops"][1], self.domain["flops"][0] / flops, 1)}
        return Prediction(loss, min(low, loss), max(high, loss), level, beyond)

    def optimal(self, flops: float, level: float = 0.9) -> Optimal:
        """Size and horizon by approach 2's regression, and the loss by the frontier.

        Raises:
            TableError: As `predict`.
        """
        loss = self.predict(flops, level)
        line = Exponents(**self.noise["exponents"])
        params = float(line.coefficient * flops**line.a)
        tokens = flops / (FLOPS_PER_PARAMETER_TOKEN * params)
        exponents = {"a": line.a, "b": line.b}
        return Optimal(params, tokens, flops, loss, exponents, line.ends(flops, level))


def from_document(document: Mapping[str, Any]) -> FrontierLaw:
    """The law of a document that `to_dict` made.

    Raises:
        ArtifactError: It is no such document.
    """
    return FrontierLaw.from_document(document)


def fit_frontier(
    table: RunTable,
    bootstrap: int = 1000,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> FrontierLaw:
    """Fit L*(C) through the minima of the table's IsoFLOP slices.

    Raises:
        TableError: The table has no IsoFLOP slices, or fewer than three with a minimum inside.
    """
    points, skipped = minima(table)
    if len(points) < len(NAMES):
        raise TableError(
            f"{len(points)} IsoFLOP slices with a minimum inside cannot determine the three "
            f"parameters of {FORMULA}",
            where=table.name,
            fix="Add budgets, or fit a surface (--form auto)",
        )
    flops, loss = np.array([m.flops for m in points]), np.array([m.loss for m in points])
    theta, sigma, degrees, weight = _settle(flops, loss)
    rng = np.random.default_rng(seed)
    sigmas = sigma * np.sqrt(degrees / rng.chisquare(degrees, bootstrap))
    shaken = np.log(loss) + sigmas[:, None] / np.sqrt(weight) * rng.standard_normal(
        (bootstrap, len(loss))
    )
    centre, width = _beliefs(loss)
    jittered = centre + width * rng.standard_normal((bootstrap, 3))
    model = _model(np.log(flops / flops.max()))
    # The solver's beliefs have one precision for all draws; the typical noise sets it.
    drawn, _ = fit_curves(
        model,
        shaken,
        weight,
        np.repeat(theta[None], bootstrap, axis=0),
        Beliefs(jittered, sigma**2 / width**2),
    )
    # With few slices the heavy tail of the noise shakes a draw so that nothing holds its exponent.
    drawn = np.clip(drawn, centre - FARTHEST * width, centre + FARTHEST * width)
    draws = _printed(drawn, float(flops.max()))
    exponents = exponents_of(points, seed)
    seen = calibration or shipped()
    return FrontierLaw(
        form="frontier",
        formula=FORMULA,
        parameters=named(NAMES, _printed(theta[None], float(flops.max()))[0]),
        stderr=named(NAMES, _stderr(draws)),
        draws=draws,
        noise=_noise(sigma, degrees, sigmas, exponents, seen),
        objective="likelihood",
        n_runs=sum(m.runs for m in points),
        domain={
            "params": (min(m.params for m in points), max(m.params for m in points)),
            "tokens": (min(m.tokens for m in points), max(m.tokens for m in points)),
            "flops": (float(flops.min()), float(flops.max())),
        },
        source=table.source,
        warnings=(*(f"slice left out: {s}" for s in skipped), _told(draws, float(flops.max()))),
        verdict=_verdict(points),
    )


def _noise(
    sigma: float, degrees: float, sigmas: Array, exponents: Exponents, seen: Calibration
) -> dict[str, Any]:
    return {
        "run_to_run": sigma,
        "degrees_of_freedom": degrees,
        "drift": seen.drift,
        "widen": seen.widen,
        "sigma": [float(f"{s:.6g}") for s in sigmas],
        "exponents": asdict(exponents),
    }


def _stderr(draws: Array) -> Array:
    """Standard errors (3,) of E, A and g; that of A is A times that of ln A, for A is the loss
    above the floor extrapolated to one FLOP, and its draws span orders of magnitude."""
    scale = draws.copy()
    scale[:, 1] = np.log(draws[:, 1])
    found = _half_width(scale)
    found[1] *= float(np.median(draws[:, 1]))
    return found


def _half_width(draws: Array) -> Array:
    """Half the central 68 % of draws (B, K): (K,), which a far-off draw does not move."""
    low, high = np.quantile(draws, [0.16, 0.84], axis=0)
    return np.asarray((high - low) / 2.0)


def _told(draws: Array, largest: float) -> str:
    """What the budgets determine in place of E, A and g: height and slope at the largest one."""
    e, big_a, g = draws.T
    reducible = big_a * largest**-g
    seen = np.column_stack([e + reducible, reducible * (1.0 - 2.0**-g)])
    (loss, fall), (loss_error, fall_error) = np.median(seen, axis=0), _half_width(seen)
    return (
        f"E, A and g are known together better than alone: at {largest:.3g} FLOPs the lowest loss "
        f"is {loss:.4f} ± {loss_error:.2g} and twice the compute lowers it by {fall:.4f} ± "
        f"{fall_error:.2g}"
    )


def _verdict(points: tuple[Minimum, ...]) -> str:
    if len(points) >= FEWEST:
        return "supported"
    last = points[-1]
    return (
        f"unsupported: {len(points)} budgets leave nothing to judge the fit by. The slice that "
        f"would help most: {FEWEST} or more sizes around {last.params * 1.5:.3g} parameters at "
        f"{last.flops * 2:.2g} FLOPs each"
    )


def _model(x: Array) -> Any:
    """ln L* and its derivatives at x = ln(C/C0) (R,), for `family.fit_curves`."""

    def evaluate(theta: Array) -> tuple[Array, Array]:
        exponent = np.exp(theta[:, 2:3])
        above = theta[:, 1:2] - exponent * x
        log_loss = np.logaddexp(theta[:, :1], above)
        share = np.exp(above - log_loss)
        return log_loss, np.stack([1.0 - share, share, -share * exponent * x], axis=2)

    return evaluate


def _beliefs(loss: Array) -> tuple[Array, Array]:
    low = float(loss.min())
    floor = np.log(low) + FLOOR[0]
    return (
        np.array([floor, np.log(low - np.exp(floor)), EXPONENT[0]]),
        np.array([FLOOR[1], SCALE, EXPONENT[1]]),
    )


def _settle(flops: Array, loss: Array) -> tuple[Array, float, float, Array]:
    """theta (3,), noise at the low end, its degrees of freedom, and the weights (R,)."""
    weight = np.exp(-RELEVANCE * excess(loss, float(loss.min())))
    x = np.log(flops / flops.max())
    model = _model(x)
    centre, width = _beliefs(loss)
    nu0, s0 = NOISE_BELIEF
    theta, sigma, degrees = centre[None], 3e-3, nu0
    for _ in range(8):
        precision = sigma**2 / width**2
        theta, _ = fit_curves(model, np.log(loss), weight, theta, Beliefs(centre, precision))
        fitted, jacobian = model(theta)
        residual = fitted[0] - np.log(loss)
        information = (jacobian[0].T * weight) @ jacobian[0]
        used = float(np.trace(np.linalg.solve(information + np.diag(precision), information)))
        degrees = nu0 + max(float(weight.sum()) - used, 0.0)
        sigma = float(np.sqrt((nu0 * s0**2 + np.sum(weight * residual**2)) / degrees))
    return theta[0], sigma, degrees, weight


def _printed(theta: Array, largest: float) -> Array:
    """E, A, g (B, 3) of coordinates (B, 3)."""
    g = np.exp(theta[:, 2])
    return np.stack([np.exp(theta[:, 0]), np.exp(theta[:, 1] + g * np.log(largest)), g], axis=1)
