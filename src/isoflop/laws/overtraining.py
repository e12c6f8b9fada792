"""Loss against every cost of a model: serving, the next unit of compute, when to stop; no fitting.

Training costs 6·N·D FLOPs and serving 2·N per token (Kaplan et al. 2020, section 2.1), so a model
that is to be served much is best made smaller and trained longer than compute alone would ask for
(Sardana et al. 2023, arXiv:2401.00448). All functions take a law of the loss surface,
L = E + (A·N^-a + B·D^-b)^g, fitted or published; of an average (`auto`) they take the median over
the laws averaged, as its forecasts do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.forms import GAMMA, Array, printed_loss
from isoflop.laws.predict import AUTO, FLOPS_PER_PARAMETER_TOKEN

FLOPS_PER_SERVED = 2.0
SURFACES = (AUTO, "chinchilla", "gamma", "kaplan-nd", "surface")
ENDLESS = 1e60
"""Parameters or tokens at which their term of any law has vanished."""
NUDGE = 0.05
"""Difference of a logarithm over which an average is differentiated: over less, its median may pass
from one law to another of a different slope."""
STEPS = 80
"""Halvings of an interval in a logarithm: far below any printed digit."""


class SurfaceLaw(Protocol):
    """What a law must have: its form and printed parameters."""

    @property
    def form(self) -> str:
        """One of `SURFACES`."""
        ...

    @property
    def parameters(self) -> dict[str, float]:
        """E, A, B, a, b and where it has one g, in this order."""
        ...


@dataclass(frozen=True)
class ServingOptimum:
    """The cheapest model of a quality for what it is to serve."""

    params: float
    tokens: float
    training_flops: float
    serving_flops: float
    total_flops: float
    tokens_per_param: float
    saving: float
    """Share of the total that it saves against the model of least training compute."""
    compute_optimal_params: float
    """The size of least training compute for this loss."""
    compute_optimal_tokens: float


@dataclass(frozen=True)
class Marginal:
    """What a little more of everything is worth at one run."""

    loss: float
    per_doubling_params: float
    """Fall of the loss with twice the parameters, same tokens."""
    per_doubling_tokens: float
    per_doubling_compute: float
    """Fall with twice the compute, divided in the best way from this run on: into parameters and
    tokens so that the loss is least."""
    per_percent_params: float
    """Fall of the loss per 1 % more, at the margin."""
    per_percent_tokens: float
    tokens_per_param: float
    """How many tokens one parameter more is worth at equal loss: -(dL/dN)/(dL/dD)."""


def surface(law: SurfaceLaw) -> tuple[float, float, float, float, float, float]:
    """E, A, B, a, b, g of a law.

    Raises:
        TableError: The law is not one of a loss surface, or an average of several.
    """
    if law.form not in SURFACES:
        raise TableError(
            f"a law of form {law.form} does not say how loss depends on size and data together",
            fix=f"Give one of form {', '.join(SURFACES[:-1])}, or a published surface",
        )
    if law.form == AUTO:
        raise TableError("an average has no parameters of its own", where="surface")
    e, big_a, big_b, a, b, g = (*law.parameters.values(), 1.0)[:6]
    # Without a floor the printed E is a stand-in for none.
    return (0.0 if law.form == "kaplan-nd" else e), big_a, big_b, a, b, g


def loss_at(law: SurfaceLaw, params: float, tokens: float) -> float:
    """The law's loss, without interval."""
    _positive(params=params, tokens=tokens)
    if (laws := _averaged(law)) is not None:
        return float(np.exp(np.median(np.log(printed_loss(laws, params, tokens)))))
    e, big_a, big_b, a, b, g = surface(law)
    size, data = np.log(big_a) - a * np.log(params), np.log(big_b) - b * np.log(tokens)
    return float(e + np.exp(g * np.logaddexp(size, data)))


def _averaged(law: SurfaceLaw) -> Array | None:
    """The laws (B, 6) behind an average; None for a single law."""
    if law.form != AUTO:
        return None
    allowed: Array = law.allowed  # type: ignore[attr-defined]
    return allowed[:, : GAMMA.size]


def tokens_for_loss(law: SurfaceLaw, params: float, loss: float) -> float | None:
    """Tokens with which a size reaches a loss; None if it never does.

    Raises:
        TableError: The law is no surface, or `params` or `loss` is not positive.
    """
    _positive(params=params, loss=loss)
    if _averaged(law) is not None:
        if loss_at(law, params, ENDLESS) >= loss:
            return None
        return _threshold(lambda ln_d: loss_at(law, params, float(np.exp(ln_d))) < loss, 1.0,
                          ENDLESS, f"a loss of {loss:g}")  # fmt: skip
    e, big_a, big_b, a, b, g = surface(law)
    if loss <= e:
        return None
    left = (loss - e) ** (1.0 / g) - big_a * params**-a
    if left <= 0.0:
        return None
    return float((big_b / left) ** (1.0 / b))


def floor_of(law: SurfaceLaw) -> float:
    """The loss that no size and no amount of data goes below.

    Raises:
        TableError: The law is no surface.
    """
    return loss_at(law, ENDLESS, ENDLESS) if law.form == AUTO else surface(law)[0]


def _least_size(law: SurfaceLaw, loss: float) -> float:
    """ln of the size that reaches a loss with endless data alone."""
    if _averaged(law) is not None:
        what = f"a loss of {loss:g}"
        return float(np.log(_threshold(
            lambda ln_n: loss_at(law, float(np.exp(ln_n)), ENDLESS) < loss, 1.0, ENDLESS, what
        )))  # fmt: skip
    e, big_a, _, a, _, g = surface(law)
    return float((np.log(big_a) - np.log((loss - e) ** (1.0 / g))) / a)


def best_for_serving(
    law: SurfaceLaw, loss: float, served_tokens: float, served_cost: float = 1.0
) -> ServingOptimum:
    """The N and D of least total FLOPs, 6·N·D + served_cost·2·N·served, at a given loss.

    Args:
        law: A loss surface.
        loss: The quality to reach.
        served_tokens: Tokens over the model's life, prompts included.
        served_cost: What a FLOP of serving costs against one of training: its price and its
            utilisation (Sardana et al. 2023, section 3 take 50 % of peak in training, 1 % in
            decoding).

    Raises:
        TableError: The law is no surface, the loss is at or below its floor, or a value is
            negative.
    """
    least = floor_of(law)
    _positive(loss=loss)
    for name, value in (("served_tokens", served_tokens), ("served_cost", served_cost)):
        if not (np.isfinite(value) and value >= 0.0):
            raise TableError(f"{name} must not be negative, but it is {value:g}")
    if loss <= least:
        raise TableError(
            f"no model reaches a loss of {loss:g}: the law's floor is {least:.4f}",
            where="loss",
            fix="Ask for more, or fit the law to runs of this data and tokenizer",
        )
    # Below this size even endless data do not reach the loss.
    ln_least = _least_size(law, loss)

    def total(served: float) -> Callable[[float], float]:
        def of(ln_params: float) -> float:
            params = float(np.exp(ln_params))
            tokens = tokens_for_loss(law, params, loss)
            if tokens is None:
                return np.inf
            each = FLOPS_PER_PARAMETER_TOKEN * tokens + FLOPS_PER_SERVED * served
            return float(np.log(params) + np.log(each))

        return of

    found = []
    for served in (0.0, served_cost * served_tokens):
        ln_params = _minimum(total(served), ln_least + 1e-9, ln_least + 40.0)
        params = float(np.exp(ln_params))
        found.append((params, float(tokens_for_loss(law, params, loss) or np.inf)))
    (plain_n, plain_d), (params, tokens) = found
    served = FLOPS_PER_SERVED * served_cost * served_tokens
    training = FLOPS_PER_PARAMETER_TOKEN * params * tokens
    plain = FLOPS_PER_PARAMETER_TOKEN * plain_n * plain_d + served * plain_n
    return ServingOptimum(
        params,
        tokens,
        training,
        served * params,
        training + served * params,
        tokens / params,
        1.0 - (training + served * params) / plain,
        plain_n,
        plain_d,
    )


def marginal(law: SurfaceLaw, params: float, tokens: float) -> Marginal:
    """What more parameters, tokens or compute would bring at a run.

    Raises:
        TableError: The law is no surface, or a value is not positive.
    """
    loss = loss_at(law, params, tokens)
    by_size, by_data = _slopes(law, params, tokens)

    def after(share: float) -> float:
        return loss_at(law, params * 2.0**share, tokens * 2.0 ** (1.0 - share))

    best = min(after(share) for share in np.linspace(0.0, 1.0, 201))
    return Marginal(
        loss=loss,
        per_doubling_params=loss - loss_at(law, 2.0 * params, tokens),
        per_doubling_tokens=loss - loss_at(law, params, 2.0 * tokens),
        per_doubling_compute=loss - best,
        per_percent_params=0.01 * by_size,
        per_percent_tokens=0.01 * by_data,
        tokens_per_param=(by_size / params) / (by_data / tokens),
    )


def _slopes(law: SurfaceLaw, params: float, tokens: float) -> tuple[float, float]:
    """-dL/dlnN and -dL/dlnD."""
    if _averaged(law) is not None:
        more, less = np.exp(NUDGE), np.exp(-NUDGE)
        return (
            (loss_at(law, params * less, tokens) - loss_at(law, params * more, tokens))
            / (2.0 * NUDGE),
            (loss_at(law, params, tokens * less) - loss_at(law, params, tokens * more))
            / (2.0 * NUDGE),
        )
    _, big_a, big_b, a, b, g = surface(law)
    size, data = big_a * params**-a, big_b * tokens**-b
    slope = g * (size + data) ** (g - 1.0)
    return slope * a * size, slope * b * data


def optimal_split(law: SurfaceLaw, flops: float) -> tuple[float, float, float]:
    """Best N and D for a budget, and the loss there (Hoffmann et al. 2022, eq. 4)."""
    _positive(flops=flops)
    if _averaged(law) is not None:
        best = law.optimal(flops)  # type: ignore[attr-defined]
        return best.params, best.tokens, loss_at(law, best.params, best.tokens)
    _, big_a, big_b, a, b, _ = surface(law)
    product = np.log(flops / FLOPS_PER_PARAMETER_TOKEN)
    ln_g = (np.log(a) + np.log(big_a) - np.log(b) - np.log(big_b)) / (a + b)
    params = float(np.exp(ln_g + b / (a + b) * product))
    tokens = float(np.exp(product - np.log(params)))
    return params, tokens, loss_at(law, params, tokens)


def diminishing_compute(law: SurfaceLaw, gain: float) -> float:
    """Compute from which on doubling it, at the best division, lowers the loss by less than `gain`.

    Args:
        gain: In the unit of the loss.

    Raises:
        TableError: The law is no surface, `gain` is not positive, or the answer lies outside 1 to
            1e40 FLOPs.
    """
    _positive(gain=gain)

    def short(ln_flops: float) -> bool:
        flops = float(np.exp(ln_flops))
        return optimal_split(law, flops)[2] - optimal_split(law, 2.0 * flops)[2] < gain

    return _threshold(short, 1.0, 1e40, f"a fall of {gain:g} per doubling of compute")


def stop_tokens(law: SurfaceLaw, params: float, gain: float) -> float:
    """Horizon beyond which doubling a size's tokens lowers the loss by less than `gain`.

    A run planned longer than this is better given to a larger model. It is about finished runs of
    different horizons, not about where to cut one run, whose schedule must have ended.

    Raises:
        TableError: The law is no surface, a value is not positive, or the answer lies outside 1 to
            1e30 tokens.
    """
    _positive(gain=gain, params=params)

    def short(ln_tokens: float) -> bool:
        tokens = float(np.exp(ln_tokens))
        return loss_at(law, params, tokens) - loss_at(law, params, 2.0 * tokens) < gain

    return _threshold(short, 1.0, 1e30, f"a fall of {gain:g} per doubling of tokens")


def _threshold(short: Callable[[float], bool], low: float, high: float, what: str) -> float:
    """Where `short` of a logarithm turns true, by halving."""
    left, right = float(np.log(low)), float(np.log(high))
    if short(left) or not short(right):
        raise TableError(f"{what} is reached nowhere between {low:g} and {high:g}")
    for _ in range(STEPS):
        middle = 0.5 * (left + right)
        left, right = (left, middle) if short(middle) else (middle, right)
    return float(np.exp(right))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Of a function with one minimum, by the golden section."""
    ratio = 0.5 * (np.sqrt(5.0) - 1.0)
    a, b = low, high
    c, d = b - ratio * (b - a), a + ratio * (b - a)
    at_c, at_d = function(c), function(d)
    for _ in range(STEPS):
        if at_c < at_d:
            b, d, at_d = d, c, at_c
            c = b - ratio * (b - a)
            at_c = function(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + ratio * (b - a)
            at_d = function(d)
    return float(0.5 * (a + b))


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0.0):
            raise TableError(f"{name} must be positive, not {value:g}")
