"""The loss of mixtures of experts from active parameters, tokens and number of experts; not for
granularity or shared experts, which it holds fixed.

The joint law of dense models and mixtures (Ludziejewski et al. 2025, eq. 6 and 4):

    L = a·Ê^delta·N^(alpha + gamma·ln Ê) + b·Ê^omega·D^(beta + zeta·ln Ê) + c
    1/Ê = 1/(E - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max

with N the active parameters, D the tokens, E the experts of a layer (1 is dense), and Ê the number
of experts that help (Clark et al. 2022, eq. 3): about E, levelling off at E_max. For fixed E it is
the additive form of `forms`. Exponents are negative here, as printed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
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
    resamples,
    spread,
)
from isoflop.laws.forms import Array
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN

FORM = "experts"
FORMULA = (
    "a*Ehat^delta*N^(alpha + gamma*ln(Ehat)) + b*Ehat^omega*D^(beta + zeta*ln(Ehat)) + c; "
    "1/Ehat = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max"
)
PARAMETERS = (
    *("a", "alpha", "delta", "gamma", "b", "beta", "omega", "zeta"),
    *("c", "E_start", "E_max"),
)
LUDZIEJEWSKI_2025 = (
    *(35.91, -0.1889, -0.2285, 0.0098, 35.98, -0.1775, 0.5529, -0.0259),
    *(1.3637, 2.0732, 290.4521),
)
"""Their table 3: some 280 runs, E from 1 to 32, up to 2.7 B active and 5 B total parameters."""
COORDINATES = 9
# Widths of weak beliefs about the coordinates of `_Design`, around Hoffmann-like exponents at every
# E. E_start and E_max are given, not fitted: runs up to E = 32 do not show them.
CENTRE_EXPONENT = np.log(0.25)
WIDTHS = np.array([3.0, 3.0, 0.7, 0.3, 0.1, 3.0, 0.7, 0.3, 0.1])
FLOORS = (0.5, 0.7, 0.85, 0.95)


@dataclass(frozen=True)
class Allocation:
    """The best use of a compute budget at one number of experts."""

    params: float
    """Active parameters."""
    tokens: float
    experts: float
    loss: Estimate


@dataclass(frozen=True)
class ExpertLaw(Family):
    """A law fitted by `fit_experts`, or `published_experts`; `noise` holds `scatter`, the standard
    deviation of the log loss."""

    NEEDS = ("scatter",)

    def predict(
        self, params: float, tokens: float, experts: float = 1.0, level: float = 0.9
    ) -> Estimate:
        """The loss of a run with `params` active parameters, `tokens` tokens and `experts` experts.

        Raises:
            TableError: A value is not positive, `experts` is below 1, or `level` not in (0, 1).
        """
        check_level(level)
        table = columns(FORM, params=params, tokens=tokens, experts=experts)
        if experts < 1.0:
            raise TableError(f"{experts:g} experts are none", fix="A dense model has 1")
        at = (table["params"], table["tokens"], table["experts"])
        value = float(joint_loss(self.values(), *at)[0, 0])
        drawn = np.log(joint_loss(self.draws, *at)[:, 0])
        reach = NormalDist().inv_cdf(0.5 + level / 2)
        half = reach * float(np.hypot(drawn.std(), self.noise["scatter"]))
        return Estimate(value, value * np.exp(-half), value * np.exp(half), level)

    def dense_equivalent(self, params: float, tokens: float, experts: float) -> float:
        """Parameters of the dense model that reaches the same loss on the same tokens; infinite
        where none does."""
        goal = self.predict(params, tokens, experts).value
        a, alpha, b, beta, c = reduced(self.values(), 1.0)[0]
        left = goal - c - b * tokens**beta
        return float((left / a) ** (1.0 / alpha)) if left > 0.0 else float("inf")

    def optimal(self, flops: float, experts: float = 1.0, level: float = 0.9) -> Allocation:
        """Active parameters and tokens with the lowest loss for 6·params·tokens = `flops` (routing
        not counted); closed form, as in Hoffmann et al. 2022, eq. 4.

        Raises:
            TableError: `flops` is not positive, or `experts` is below 1.
        """
        columns(FORM, flops=flops)
        if experts < 1.0:
            raise TableError(f"{experts:g} experts are none", fix="A dense model has 1")
        a, alpha, b, beta, _ = reduced(self.values(), experts)[0]
        total = -(alpha + beta)
        ln_g = (np.log(-alpha * a) - np.log(-beta * b)) / total
        ln_product = np.log(flops / FLOPS_PER_PARAMETER_TOKEN)
        params = float(np.exp(ln_g - beta / total * ln_product))
        tokens = float(np.exp(ln_product) / params)
        return Allocation(params, tokens, experts, self.predict(params, tokens, experts, level))


def from_document(document: Mapping[str, Any]) -> ExpertLaw:
    """The law of a `law.json` document; ArtifactError where it is not one."""
    return ExpertLaw.from_document(document)


def helpful_experts(experts: ArrayLike, start: ArrayLike, most: ArrayLike) -> Array:
    """Ê of E, elementwise (Clark et al. 2022, eq. 3)."""
    count, first = np.asarray(experts, dtype=np.float64), np.asarray(start, dtype=np.float64)
    limit = np.asarray(most, dtype=np.float64)
    return np.asarray(1.0 / (1.0 / (count - 1.0 + 1.0 / (1.0 / first - 1.0 / limit)) + 1.0 / limit))


def reduced(printed: Array, experts: float) -> Array:
    """The additive law at one number of experts: A, alpha, B, beta, E as (B, 5) of (B, 11); the
    exponents are negative."""
    a, alpha, delta, gamma, b, beta, omega, zeta, c, start, most = printed.T
    ln_e = np.log(helpful_experts(experts, start, most))
    return np.column_stack(
        [
            a * np.exp(delta * ln_e),
            alpha + gamma * ln_e,
            b * np.exp(omega * ln_e),
            beta + zeta * ln_e,
            c,
        ]
    )


def joint_loss(printed: Array, params: Array, tokens: Array, experts: Array) -> Array:
    """Losses (B, R) of printed parameters (B, 11) at R runs."""
    a, alpha, delta, gamma, b, beta, omega, zeta, c, start, most = (p[:, None] for p in printed.T)
    ln_e = np.log(helpful_experts(experts, start, most))
    size = np.log(a) + delta * ln_e + (alpha + gamma * ln_e) * np.log(params)
    data = np.log(b) + omega * ln_e + (beta + zeta * ln_e) * np.log(tokens)
    return np.asarray(np.exp(size) + np.exp(data) + c)


def published_experts() -> ExpertLaw:
    """The law of Ludziejewski et al. 2025, table 3."""
    values = np.array([LUDZIEJEWSKI_2025])
    parameters = named(PARAMETERS, values[0])
    source = ({"path": "Ludziejewski et al. 2025, table 3", "sha256": ""},)
    return ExpertLaw(
        FORM, FORMULA, parameters, dict.fromkeys(parameters, 0.0), values, {"scatter": 0.0},
        "published", 280, {}, source, (), "supported",
    )  # fmt: skip


def fit_experts(
    params: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    loss: ArrayLike,
    *,
    start: float = LUDZIEJEWSKI_2025[9],
    most: float = LUDZIEJEWSKI_2025[10],
    bootstrap: int = 300,
    seed: int = 0,
) -> ExpertLaw:
    """Fit the joint law to runs of shape (R,), by least squares on the log loss.

    Args:
        params: Active parameters.
        experts: Experts of a layer; 1 for dense models.
        start, most: E_start and E_max, which the runs at hand rarely show.

    Raises:
        TableError: Fewer runs than coordinates, or one size, horizon or number of experts only.
    """
    check_refits(bootstrap)
    table = columns(FORM, params=params, tokens=tokens, experts=experts, loss=loss)
    if np.any(table["experts"] < 1.0):
        raise TableError("a run has less than one expert", where=FORM, fix="A dense model has 1")
    levels = {name: len(np.unique(table[name])) for name in ("params", "tokens", "experts")}
    if len(table["loss"]) <= COORDINATES or min(levels.values()) < 2:
        counted = ", ".join(f"{count} of {name}" for name, count in levels.items())
        raise TableError(
            f"{len(table['loss'])} runs with different values {counted} cannot determine the law",
            where=FORM,
            fix=f"Give more than {COORDINATES} runs that vary all three",
        )
    design = _Design.of(table, start, most)
    target = np.log(table["loss"])
    ones = np.ones_like(target)
    starts = design.starts(float(table["loss"].min()))
    scatter, freedom = 0.01, max(len(target) - COORDINATES, 1)
    for _ in range(3):  # the weight of the beliefs depends on the scatter, and it on the fit
        beliefs = Beliefs(design.centre(), scatter**2 / WIDTHS**2)
        found, objective = fit_curves(design.log_loss, target, ones, starts, beliefs, 300)
        best = found[np.argmin(objective)][None]
        off = design.log_loss(best)[0][0] - target
        scatter = max(float(np.sqrt(off @ off / freedom)), 1e-9)
    repeats = resamples(np.arange(len(target)), bootstrap, np.random.default_rng(seed))
    near = np.broadcast_to(best, (bootstrap, COORDINATES))
    drawn = design.printed(fit_curves(design.log_loss, target, repeats, near, beliefs)[0])
    few = [name for name, count in levels.items() if count < 3]
    flops = FLOPS_PER_PARAMETER_TOKEN * table["params"] * table["tokens"]
    return ExpertLaw(
        form=FORM,
        formula=FORMULA,
        parameters=named(PARAMETERS, design.printed(best)[0]),
        stderr=named(PARAMETERS, spread(drawn)),
        draws=drawn,
        noise={"scatter": scatter},
        objective="lsq",
        n_runs=len(target),
        domain={name: ends(table[name]) for name in levels} | {"flops": ends(flops)},
        source=(),
        warnings=(f"E_start {start:g} and E_max {most:g} were given, not fitted",),
        verdict=f"unsupported: fewer than 3 values of {', '.join(few)}" if few else "supported",
    )


@dataclass(frozen=True)
class _Design:
    """The runs in centred logs. Coordinates: ln c; ln of the size term at the centre, ln of minus
    its exponent there, its slope in ln Ê, the exponent's slope in ln Ê; and the same of the data
    term."""

    x: Array
    """ln(N / N0), (R,)."""
    y: Array
    """ln(D / D0), (R,)."""
    z: Array
    """ln(Ê / Ê0), (R,)."""
    origin: tuple[float, float, float]
    limits: tuple[float, float]

    @staticmethod
    def of(table: Mapping[str, Array], start: float, most: float) -> _Design:
        logs = [np.log(table["params"]), np.log(table["tokens"])]
        logs.append(np.log(helpful_experts(table["experts"], start, most)))
        n0, d0, e0 = (float(v.mean()) for v in logs)
        return _Design(logs[0] - n0, logs[1] - d0, logs[2] - e0, (n0, d0, e0), (start, most))

    def starts(self, lowest: float) -> Array:
        """Plausible coordinates (S, 9): several floors, the rest divided between the terms."""
        rows = []
        for share in FLOORS:
            term = np.log(0.5 * (1.0 - share) * lowest + 0.1 * lowest)
            rows.append([np.log(share * lowest), term, CENTRE_EXPONENT, 0.0, 0.0])
            rows[-1] += [term, CENTRE_EXPONENT, 0.0, 0.0]
        return np.array(rows)

    def centre(self) -> Array:
        """Centre (9,) of the beliefs."""
        return np.array([0.0, 0.0, CENTRE_EXPONENT, 0.0, 0.0, 0.0, CENTRE_EXPONENT, 0.0, 0.0])

    def log_loss(self, theta: Array) -> tuple[Array, Array]:
        """ln L (B, R) and its derivatives (B, R, 9)."""
        jacobian = np.empty((len(theta), len(self.x), COORDINATES))
        floor = np.exp(theta[:, :1])
        total = floor + np.zeros_like(self.x)
        jacobian[:, :, 0] = floor
        for first, away in ((1, self.x), (5, self.y)):
            exponent = np.exp(theta[:, first + 1 : first + 2])
            bend = theta[:, first + 3 : first + 4] * self.z * away
            term = np.exp(
                np.clip(
                    theta[:, first : first + 1]
                    - exponent * away
                    + theta[:, first + 2 : first + 3] * self.z
                    + bend,
                    -50.0,
                    50.0,
                )
            )
            total = total + term
            jacobian[:, :, first] = term
            jacobian[:, :, first + 1] = -term * exponent * away
            jacobian[:, :, first + 2] = term * self.z
            jacobian[:, :, first + 3] = term * self.z * away
        return np.log(total), jacobian / total[:, :, None]

    def printed(self, theta: Array) -> Array:
        """Printed parameters (B, 11) of coordinates (B, 9)."""
        n0, d0, e0 = self.origin
        shown = []
        for first, middle in ((1, n0), (5, d0)):
            height, slope, bend = theta[:, first], theta[:, first + 2], theta[:, first + 3]
            # Uncentring: the product bend·(ln Ê - e0)·(ln N - n0) feeds all four.
            exponent = -np.exp(theta[:, first + 1]) - bend * e0
            ln_scale = height - slope * e0 - exponent * middle
            power = slope - bend * middle
            shown += [np.exp(np.clip(ln_scale, -700.0, 700.0)), exponent, power, bend]
        limits = np.broadcast_to(self.limits, (len(theta), 2))
        return np.column_stack([*shown, np.exp(theta[:, 0]), limits])
