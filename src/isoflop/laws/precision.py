"""What low precision costs: training with few bits, and quantising a trained model; not for
choosing a quantiser (compression).

Kumar et al. 2024, Scaling laws for precision, eq. 2 and 3, with the offsets of their appendix K:

    L       = A·N_eff^-alpha + B·D^-beta + E,   N_eff = N·(1 - exp(n - P/gamma))
    delta   = C_T · D^gamma_D / N^gamma_N · exp(-P_post/gamma_post)

with P the bits of the weights in training (or of all parts alike, for which gamma and n are then
the joint ones) and delta the loss that quantising to P_post bits after training adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

TRAINING, QUANTISATION = "precision", "quantisation"
FORMULAS = {
    TRAINING: "E + A*(N*(1 - exp(n - P/gamma)))^-alpha + B*D^-beta",
    QUANTISATION: "delta = C_T*D^gamma_D/N^gamma_N*exp(-P/gamma_post)",
}
PARAMETERS: dict[str, tuple[str, ...]] = {
    TRAINING: ("E", "A", "B", "alpha", "beta", "gamma", "n"),
    QUANTISATION: ("C_T", "gamma_D", "gamma_N", "gamma_post"),
}
FULL_BITS = 16.0  # what they take as unlimited precision, and the bits that 6·N·D FLOPs stand for
KUMAR_2024 = {
    TRAINING: (2.7648, 4.299e3, 1.806e4, 0.4965, 0.4965, 2.6745, 0.3037),
    # Their exponent is b - P/gamma with b = 1.1277; here C_T = 0.0598·exp(b).
    QUANTISATION: (0.0598 * float(np.exp(1.1277)), 0.5068, 0.3439, 0.5907),
}
"""Their table 2, for the weights alone in training; N without embeddings, 30 to 220 M, D from 1.5
to 26 B. They print the offsets without a sign; a plus makes activations the most sensitive part, as
they say."""
# Weak beliefs about ln E, ln of the two terms, ln alpha, ln beta, ln gamma and n.
CENTRE = np.array([0.0, 0.0, 0.0, np.log(0.35), np.log(0.35), np.log(2.0), 0.0])
WIDTHS = np.array([3.0, 3.0, 3.0, 0.7, 0.7, 1.0, 1.0])
STARTS = ((0.5, 1.0), (0.5, 3.0), (0.8, 1.0), (0.8, 3.0), (0.93, 2.0))  # share of E, gamma


@dataclass(frozen=True)
class PrecisionLaw(Family):
    """The training law; `fit_precision` or `published_precision`. `noise` holds `scatter`, the
    standard deviation of the log loss."""

    NEEDS = ("scatter",)

    def predict(
        self, params: float, tokens: float, bits: float = FULL_BITS, level: float = 0.9
    ) -> Estimate:
        """The loss of a run trained with `bits` bits.

        Raises:
            TableError: A value is not positive, or so few bits that no parameter is left.
        """
        check_level(level)
        table = columns(TRAINING, params=params, tokens=tokens, bits=bits)
        self._check_bits(bits)
        at = (table["params"], table["tokens"], table["bits"])
        value = float(_trained(self.values(), *at)[0, 0])
        drawn = np.log(_trained(self.draws, *at)[:, 0])
        reach = NormalDist().inv_cdf(0.5 + level / 2)
        half = reach * float(np.hypot(np.nanstd(drawn), self.noise["scatter"]))
        return Estimate(value, value * np.exp(-half), value * np.exp(half), level)

    def effective_share(self, bits: float) -> float:
        """N_eff / N at a number of bits; 0 where none is left."""
        return max(0.0, 1.0 - float(np.exp(self.parameters["n"] - bits / self.parameters["gamma"])))

    def best_bits(self, parts: int = 3) -> float:
        """Bits with the lowest loss when compute is (6/16)·N·D·P and all three may be chosen: it
        does not depend on the compute (their section 4.3.2).

        Args:
            parts: How many parts have these bits and lose effective parameters by them: 3 for
                weights, activations and cache (their eq. 5). With 1 fewer bits always pay, which
                is no advice: the other parts then cost nothing.
        """
        grid = np.geomspace(0.5, 64.0, 20_001)
        share = 1.0 - np.exp(self.parameters["n"] - grid / self.parameters["gamma"])
        kept = np.where(share > 0.0, share, np.nan)
        # The least of A'(N)^-alpha + B·D^-beta for N·D = C/P is a power of C·kept^parts/P alone.
        worth = parts * np.log(kept) - np.log(grid)
        return float(grid[int(np.nanargmax(worth))])

    def optimal(self, flops: float, bits: float = FULL_BITS) -> tuple[float, float]:
        """Parameters and tokens with the lowest loss for (6/16)·N·D·bits = `flops` (their eq. 6).

        Raises:
            TableError: `flops` is not positive, or so few bits that no parameter is left.
        """
        columns(TRAINING, flops=flops, bits=bits)
        self._check_bits(bits)
        _, big_a, big_b, alpha, beta, _, _ = self.parameters.values()
        product = flops / (FLOPS_PER_PARAMETER_TOKEN * bits / FULL_BITS)
        ln_a = np.log(big_a) - alpha * np.log(self.effective_share(bits))
        ln_g = (np.log(alpha) + ln_a - np.log(beta) - np.log(big_b)) / (alpha + beta)
        params = float(np.exp(ln_g + beta / (alpha + beta) * np.log(product)))
        return params, float(product / params)

    def _check_bits(self, bits: float) -> None:
        if self.effective_share(bits) <= 0.0:
            raise TableError(
                f"at {bits:g} bits the law leaves no effective parameter",
                where="bits",
                fix=f"Use more than {self.parameters['n'] * self.parameters['gamma']:.2g} bits",
            )


@dataclass(frozen=True)
class QuantisationLaw(Family):
    """The law of quantising after training; `fit_quantisation` or `published_quantisation`. `noise`
    holds `scatter`, the standard deviation of ln delta."""

    NEEDS = ("scatter",)

    def predict(self, params: float, tokens: float, bits: float, level: float = 0.9) -> Estimate:
        """The loss that quantising a model of this size and training to `bits` bits adds.

        Raises:
            TableError: A value is not positive.
        """
        check_level(level)
        table = columns(QUANTISATION, params=params, tokens=tokens, bits=bits)
        basis = np.array([1.0, np.log(table["tokens"][0]), -np.log(table["params"][0]), -bits])
        centre = float(_linear(self.values())[0] @ basis)
        reach = NormalDist().inv_cdf(0.5 + level / 2)
        drawn = _linear(self.draws) @ basis
        half = reach * float(np.hypot(drawn.std(), self.noise["scatter"]))
        value, low, high = np.exp([centre, centre - half, centre + half])
        return Estimate(float(value), float(low), float(high), level)

    def critical_tokens(self, training: PrecisionLaw, params: float, bits: float) -> float:
        """Tokens beyond which more training makes the quantised model worse (their appendix E):
        there the data term falls as fast as delta rises."""
        _, _, big_b, _, beta, _, _ = training.parameters.values()
        c_t, of_d, of_n, post = self.parameters.values()
        ln_ratio = np.log(beta * big_b) - np.log(of_d * c_t) + of_n * np.log(params) + bits / post
        return float(np.exp(ln_ratio / (of_d + beta)))


def from_document(document: Mapping[str, Any]) -> PrecisionLaw | QuantisationLaw:
    """The law of a `law.json` document; ArtifactError where it is not one."""
    kind = QuantisationLaw if document.get("form") == QUANTISATION else PrecisionLaw
    return kind.from_document(document)


def published_precision() -> PrecisionLaw:
    """The training law of Kumar et al. 2024, table 2, weights alone."""
    return PrecisionLaw(*_published(TRAINING))


def published_quantisation() -> QuantisationLaw:
    """The post-training law of Kumar et al. 2024, table 2 (GPTQ)."""
    return QuantisationLaw(*_published(QUANTISATION))


def _published(form: str) -> tuple[Any, ...]:
    values = np.array([KUMAR_2024[form]])
    parameters = named(PARAMETERS[form], values[0])
    source = ({"path": "Kumar et al. 2024, table 2", "sha256": ""},)
    nothing = dict.fromkeys(parameters, 0.0)
    head = (form, FORMULAS[form], parameters, nothing, values, {"scatter": 0.0})
    return (*head, "published", 465, {}, source, (), "supported")


def fit_precision(
    params: ArrayLike,
    tokens: ArrayLike,
    bits: ArrayLike,
    loss: ArrayLike,
    *,
    bootstrap: int = 300,
    seed: int = 0,
) -> PrecisionLaw:
    """Fit the training law to runs of shape (R,), by least squares on the log loss.

    Raises:
        TableError: Fewer runs than parameters, or one size, horizon or precision only.
    """
    check_refits(bootstrap)
    table = columns(TRAINING, params=params, tokens=tokens, bits=bits, loss=loss)
    few = _check_levels(TRAINING, table)
    ln_n, ln_d = np.log(table["params"]), np.log(table["tokens"])
    n0, d0 = float(ln_n.mean()), float(ln_d.mean())
    x, y, p = ln_n - n0, ln_d - d0, table["bits"]
    target, lowest = np.log(table["loss"]), float(table["loss"].min())

    def model(theta: Array) -> tuple[Array, Array]:
        floor, exponents = np.exp(theta[:, :1]), np.exp(theta[:, 3:6])
        lost = np.exp(np.minimum(theta[:, 6:7] - p / exponents[:, 2:3], -1e-3))
        size = np.exp(theta[:, 1:2] - exponents[:, :1] * (x + np.log1p(-lost)))
        data = np.exp(theta[:, 2:3] - exponents[:, 1:2] * y)
        total = floor + size + data
        jacobian = np.empty((*total.shape, 7))
        jacobian[:, :, 0], jacobian[:, :, 1], jacobian[:, :, 2] = floor, size, data
        jacobian[:, :, 3] = -size * exponents[:, :1] * (x + np.log1p(-lost))
        jacobian[:, :, 4] = -data * exponents[:, 1:2] * y
        pull = size * exponents[:, :1] * lost / (1.0 - lost)
        jacobian[:, :, 5], jacobian[:, :, 6] = pull * p / exponents[:, 2:3], pull
        return np.log(total), jacobian / total[:, :, None]

    def printed(theta: Array) -> Array:
        alpha, beta = np.exp(theta[:, 3]), np.exp(theta[:, 4])
        scales = [np.exp(theta[:, 1] + alpha * n0), np.exp(theta[:, 2] + beta * d0)]
        return np.column_stack(
            [np.exp(theta[:, 0]), *scales, alpha, beta, np.exp(theta[:, 5]), theta[:, 6]]
        )

    starts = np.tile(CENTRE, (len(STARTS), 1))
    for row, (share, gamma) in zip(starts, STARTS, strict=True):
        row[0], row[5] = np.log(share * lowest), np.log(gamma)
        row[1:3] = np.log((0.6 - share / 2.0) * lowest)
    scatter, freedom = 0.01, max(len(target) - len(CENTRE), 1)
    for _ in range(3):  # the weight of the beliefs depends on the scatter, and it on the fit
        beliefs = Beliefs(CENTRE, scatter**2 / WIDTHS**2)
        found, objective = fit_curves(model, target, np.ones_like(x), starts, beliefs, 300)
        best = found[np.argmin(objective)][None]
        off = model(best)[0][0] - target
        scatter = max(float(np.sqrt(off @ off / freedom)), 1e-9)
    repeats = resamples(np.arange(len(x)), bootstrap, np.random.default_rng(seed))
    near = np.broadcast_to(best, (bootstrap, len(CENTRE)))
    drawn = printed(fit_curves(model, target, repeats, near, beliefs)[0])
    law = PrecisionLaw(*_fitted(TRAINING, table, printed(best)[0], drawn, scatter))
    return replace(law, verdict=f"unsupported: {few}") if few else law


def fit_quantisation(
    params: ArrayLike,
    tokens: ArrayLike,
    bits: ArrayLike,
    added_loss: ArrayLike,
    *,
    bootstrap: int = 300,
    seed: int = 0,
) -> QuantisationLaw:
    """Fit the post-training law to added losses (R,): linear least squares on ln delta.

    Raises:
        TableError: Fewer rows than parameters; one size, horizon or precision only; an added loss
            that is not positive (leave out what quantising did not harm).
    """
    check_refits(bootstrap)
    table = columns(QUANTISATION, params=params, tokens=tokens, bits=bits, added_loss=added_loss)
    few = _check_levels(QUANTISATION, table)
    ones = np.ones(len(table["bits"]))
    basis = np.column_stack(
        [ones, np.log(table["tokens"]), -np.log(table["params"]), -table["bits"]]
    )
    target = np.log(table["added_loss"])
    best = np.linalg.lstsq(basis, target, rcond=None)[0]
    off = basis @ best - target
    scatter = float(np.sqrt(off @ off / max(len(target) - 4, 1)))
    # Refits to the fitted values plus noise, which stay solvable where a resample would not be.
    noisy = (target + off)[:, None] + scatter * np.random.default_rng(seed).standard_normal(
        (len(target), bootstrap)
    )
    drawn = np.linalg.lstsq(basis, noisy, rcond=None)[0].T
    shown = [_nonlinear(rows) for rows in (best[None], drawn)]
    law = QuantisationLaw(*_fitted(QUANTISATION, table, shown[0][0], shown[1], scatter))
    if best[3] <= 0.0:
        few = "the added loss does not fall with the bits"
    return replace(law, verdict=f"unsupported: {few}") if few else law


def _check_levels(form: str, table: Mapping[str, Array]) -> str:
    """What is thin about the table, or nothing; TableError where it determines no law."""
    levels = {name: len(np.unique(table[name])) for name in ("params", "tokens", "bits")}
    if len(table["bits"]) <= len(PARAMETERS[form]) or min(levels.values()) < 2:
        counted = ", ".join(f"{count} of {name}" for name, count in levels.items())
        raise TableError(
            f"{len(table['bits'])} runs with different values {counted} cannot determine the law",
            where=form,
            fix=f"Give more than {len(PARAMETERS[form])} runs that vary all three",
        )
    thin = [name for name, count in levels.items() if count < 3]
    return f"fewer than 3 values of {', '.join(thin)}" if thin else ""


def _fitted(
    form: str, table: Mapping[str, Array], best: Array, drawn: Array, scatter: float
) -> tuple[Any, ...]:
    names = PARAMETERS[form]
    domain = {name: ends(table[name]) for name in ("params", "tokens", "bits")}
    parts = (named(names, best), named(names, spread(drawn)), drawn, {"scatter": scatter})
    return (form, FORMULAS[form], *parts, "lsq", len(table["bits"]), domain, (), (), "supported")


def _trained(printed: Array, params: Array, tokens: Array, bits: Array) -> Array:
    """Losses (B, R) of printed parameters (B, 7); NaN where no parameter is left."""
    floor, big_a, big_b, alpha, beta, gamma, offset = (p[:, None] for p in printed.T)
    lost = np.exp(offset - bits / gamma)
    kept = np.where(lost < 1.0, 1.0 - lost, np.nan)
    return np.asarray(floor + big_a * (params * kept) ** -alpha + big_b * tokens**-beta)


def _linear(printed: Array) -> Array:
    """Coefficients of (1, ln D, -ln N, -P), (B, 4), of printed parameters (B, 4)."""
    return np.column_stack(
        [np.log(printed[:, 0]), printed[:, 1], printed[:, 2], 1.0 / printed[:, 3]]
    )


def _nonlinear(linear: Array) -> Array:
    """Printed parameters (B, 4) of the coefficients (B, 4)."""
    bits = np.where(np.abs(linear[:, 3]) > 1e-12, linear[:, 3], 1e-12)
    return np.column_stack([np.exp(linear[:, 0]), linear[:, 1], linear[:, 2], 1.0 / bits])
