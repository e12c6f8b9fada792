"""The best learning rate and batch as power laws of size and tokens, or of compute.

Not for choosing a schedule, and not for saying what a loss will be (fit, predict).

**From a sweep** (several learning rates, and perhaps batches, at each setting of N and D) all
settings share one valley, a parabola in ln learning rate and ln batch, whose floor moves by the
power law (`valley`). One weighted least-squares solve finds it, and settings whose optimum lies
outside what was tried still count.

**From a table of optima** (one row per setting) the law is plain least squares on logs.
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
    Estimate,
    Family,
    check_level,
    check_refits,
    columns,
    ends,
    named,
    resamples,
    spread,
)
from isoflop.laws.forms import Array
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, times_beyond
from isoflop.laws.valley import (
    GOOD,
    HELD_SHARE,
    TRIED,
    Mask,
    Of,
    Valley,
    regress,
    settings_basis,
    transfer,
    varies_within,
)

FORM = "hyperparameters"
HYPERPARAMETERS = ("learning_rate", "batch_tokens")
MOST_OUTSIDE = 0.5
FACTORS: dict[Of, tuple[str, ...]] = {"params-tokens": ("N", "D"), "flops": ("C",)}


@dataclass(frozen=True)
class Choice:
    """A learning rate or a batch for a run."""

    best: Estimate
    """The interval holds the optimum of a further setting like those of the table."""
    basin: tuple[float, float] | None
    """Values that lose at most 0.25 % of the loss, the other one at its best; None where the table
    has optima alone."""

    def to_dict(self) -> dict[str, Any]:
        """The choice as the command line prints it."""
        return self.best.to_dict() | {"basin": None if self.basin is None else list(self.basin)}


@dataclass(frozen=True)
class HyperparameterPrediction:
    """What to train a run with."""

    learning_rate: Choice
    batch_tokens: Choice | None
    """None where the table varies no batch."""
    carried_loss_percent: float | None
    """What the law expects to lose by keeping the optimum of the largest setting of the table."""
    extrapolation: dict[str, float]
    """`params`, `tokens`, `flops`: how many times beyond the table's settings; 1 among them. Empty
    where the law's table is not known."""

    def to_dict(self) -> dict[str, Any]:
        """The prediction document of the command line."""
        batch = self.batch_tokens
        return {
            "learning_rate": self.learning_rate.to_dict(),
            "batch_tokens": None if batch is None else batch.to_dict(),
            "carried_loss_percent": self.carried_loss_percent,
            "extrapolation": dict(self.extrapolation),
        }


@dataclass(frozen=True)
class HyperparameterLaw(Family):
    """A law fitted by `fit_sweep` or `fit_optima`; its `noise` holds `of`; `scatter`, the standard
    deviations of the settings' optima about the law (in ln); `curvature`, the H above, or None;
    `largest`, the optimum of the largest setting as natural logs; `transfer`, see `Transfer`."""

    NEEDS = ("of", "scatter", "curvature", "largest")

    def predict(self, params: float, tokens: float, level: float = 0.9) -> HyperparameterPrediction:
        """Learning rate and batch for a run of `params` parameters on `tokens` tokens.

        Raises:
            TableError: `params` or `tokens` is not positive, or `level` not between 0 and 1.
        """
        check_level(level)
        columns(FORM, params=params, tokens=tokens)
        basis = settings_basis(np.array([params]), np.array([tokens]), self.noise["of"])[0]
        width = len(basis)
        centre = _logs(self.values(), width) @ basis
        spreads = np.std(_logs(self.draws, width) @ basis, axis=0)
        if len(self.draws) < 2:
            spreads = np.zeros(centre.shape[1])
        half_width = NormalDist().inv_cdf(0.5 + level / 2) * np.hypot(
            spreads, self.noise["scatter"]
        )
        curvature = self.noise["curvature"]
        choices = []
        for i, middle in enumerate(centre[0]):
            basin = None
            if curvature is not None:
                half = np.sqrt(2.0 * GOOD / curvature[i][i])
                basin = (float(np.exp(middle - half)), float(np.exp(middle + half)))
            low, high = np.exp(middle - half_width[i]), np.exp(middle + half_width[i])
            best = Estimate(float(np.exp(middle)), float(low), float(high), level)
            choices.append(Choice(best, basin))
        carried = None
        if curvature is not None:
            off = centre[0] - np.array(self.noise["largest"])
            carried = float(50.0 * off @ np.array(curvature) @ off)
        reach = {"params": params, "tokens": tokens}
        reach["flops"] = FLOPS_PER_PARAMETER_TOKEN * params * tokens
        return HyperparameterPrediction(
            choices[0],
            choices[1] if len(choices) > 1 else None,
            carried,
            {name: times_beyond(reach[name], span) for name, span in self.domain.items()},
        )


def from_document(document: Mapping[str, Any]) -> HyperparameterLaw:
    """The law of a `law.json` document; ArtifactError where it is not one."""
    return HyperparameterLaw.from_document(document)


def fit_optima(
    params: ArrayLike,
    tokens: ArrayLike,
    learning_rate: ArrayLike,
    batch_tokens: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    of: Of = "params-tokens",
    bootstrap: int = 1000,
    seed: int = 0,
) -> HyperparameterLaw:
    """Fit the power laws to a table of optima: one row per setting, columns of shape (S,).

    Raises:
        TableError: Fewer settings than the law has exponents, or settings that do not vary.
    """
    check_refits(bootstrap)
    given = {"params": params, "tokens": tokens, "learning_rate": learning_rate}
    if batch_tokens is not None:
        given["batch_tokens"] = batch_tokens
    if weight is not None:
        given["weight"] = weight
    table = columns(FORM, **given)
    weights = table.pop("weight", np.ones_like(table["params"]))
    optima = np.log(np.column_stack([table[k] for k in HYPERPARAMETERS if k in table]))
    basis = _checked_basis(table["params"], table["tokens"], of)
    rng = np.random.default_rng(seed)
    repeats = resamples(np.arange(len(basis)), bootstrap, rng) * weights
    power = regress(basis, optima, weights[None])[0]
    checked = transfer(basis, optima, _flops(table), None, None)
    return _law(table, of, optima, power, regress(basis, optima, repeats), checked, None, weights)


def fit_sweep(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    learning_rate: ArrayLike,
    batch_tokens: ArrayLike | None = None,
    *,
    of: Of = "params-tokens",
    bootstrap: int = 1000,
    seed: int = 0,
) -> HyperparameterLaw:
    """Fit the valley above to a sweep: one row per run, columns of shape (R,).

    A batch that varies within no setting is left out of the law.

    Raises:
        TableError: Fewer than three settings with three learning rates each, settings that do not
            vary, or losses without a valley.
    """
    check_refits(bootstrap)
    given = {"params": params, "tokens": tokens, "loss": loss, "learning_rate": learning_rate}
    if batch_tokens is not None:
        given["batch_tokens"] = batch_tokens
    table = columns(FORM, **given)
    settings, member = np.unique(
        np.column_stack([table["params"], table["tokens"]]), axis=0, return_inverse=True
    )
    member = member.ravel().astype(np.intp)
    tried = np.log(np.column_stack([table[k] for k in HYPERPARAMETERS if k in table]))
    if tried.shape[1] == 2 and not varies_within(member, tried[:, 1], len(settings)).any():
        tried = tried[:, :1]
    enough = varies_within(member, tried[:, 0], len(settings))
    if int(enough.sum()) < TRIED:
        raise TableError(
            f"{int(enough.sum())} settings were tried at {TRIED} learning rates or more",
            where=FORM,
            fix=f"Sweep the learning rate at no fewer than {TRIED} settings of params and tokens",
        )
    swept = {"params": settings[enough, 0], "tokens": settings[enough, 1]}
    basis = _checked_basis(swept["params"], swept["tokens"], of)
    valley = Valley.of(table, tried, settings, member, enough[member], of)
    return _fit_valley(valley, swept, basis, of, enough, bootstrap, seed)


def _fit_valley(
    valley: Valley,
    swept: dict[str, Array],
    basis: Array,
    of: Of,
    enough: Mask,
    bootstrap: int,
    seed: int,
) -> HyperparameterLaw:
    bends, powers = valley.solve(enough[None].astype(np.float64))
    curvature = bends[0]
    if np.any(np.linalg.eigvalsh(curvature) <= 0.0):
        raise TableError(
            "the losses have no valley: they bend the wrong way or not at all",
            where=FORM,
            fix="Try learning rates on both sides of the best one, and drop diverged runs",
        )
    repeats = np.zeros((bootstrap, len(enough)))
    drawn = resamples(np.arange(len(basis)), bootstrap, np.random.default_rng(seed))
    repeats[:, enough] = drawn
    drawn_bends, drawn_powers = valley.solve(repeats)
    sound = np.all(np.linalg.eigvalsh(drawn_bends) > 0.0, axis=1)
    optima = valley.optima(curvature)[enough]
    flops = _flops(swept)
    small = np.zeros((1, len(enough)))
    small[0, enough] = flops <= flops.max() * HELD_SHARE
    # The held settings' own optima are read with the curvature of all runs: a valley's width hardly
    # moves, and a setting alone determines it badly.
    small_law = valley.solve(small)[1][0] if small.sum() > basis.shape[1] else None
    checked = transfer(basis, optima, flops, small_law, curvature)
    law = _law(
        swept,
        of,
        optima,
        powers[0],
        drawn_powers[sound],
        checked,
        curvature,
        valley.information()[enough],
    )
    outside = np.mean((optima < valley.reach[0][enough]) | (optima > valley.reach[1][enough]))
    verdict = law.verdict
    if outside > MOST_OUTSIDE or sound.mean() < 1.0 - MOST_OUTSIDE:
        verdict = (
            f"unsupported: {outside:.0%} of the settings have their best value outside what was "
            "tried; extend the sweep until the loss rises on both sides"
        )
    elif not sound.all():
        extra = f"{1 - sound.mean():.0%} of the resamples have no valley and were left out"
        return replace(law, warnings=(*law.warnings, extra))
    return replace(law, verdict=verdict)


def published_law(name: str) -> HyperparameterLaw:
    """A law of the literature: `deepseek` (DeepSeek-AI 2024, section 3.1) or `step-law` (Li et al.
    2025), batch in tokens. DeepSeek's C counts non-embedding FLOPs, Step Law's N no embeddings.

    Raises:
        TableError: There is no such law.
    """
    if name not in PUBLISHED:
        raise TableError(
            f"there is no published hyper-parameter law {name!r}",
            fix=f"Choose one of {', '.join(PUBLISHED)}",
        )
    of, power = PUBLISHED[name]
    parameters = named(_names(of, 2), _printed(np.array([power]))[0])
    return HyperparameterLaw(
        FORM, _formula(of, 2), parameters, dict.fromkeys(parameters, 0.0),
        np.array([list(parameters.values())]),
        {"of": of, "scatter": [0.0, 0.0], "curvature": None, "largest": None, "transfer": None},
        "published", 0, {}, ({"path": name, "sha256": ""},), (), "supported",
    )  # fmt: skip


PUBLISHED: dict[str, tuple[Of, list[list[float]]]] = {
    "deepseek": ("flops", [[np.log(0.3118), -0.1250], [np.log(0.2920), 0.3271]]),
    "step-law": ("params-tokens", [[np.log(1.79), -0.713, 0.307], [np.log(0.58), 0.0, 0.571]]),
}


def _checked_basis(params: Array, tokens: Array, of: Of) -> Array:
    if of not in FACTORS:
        raise TableError(
            f"there is no hyper-parameter law of {of!r}",
            where=FORM,
            fix=f"Choose {' or '.join(FACTORS)}",
        )
    basis = settings_basis(params, tokens, of)
    problem = ""
    if len(basis) <= basis.shape[1]:
        problem = f"{len(basis)} settings cannot determine {basis.shape[1]} coefficients"
    elif np.linalg.matrix_rank(basis - basis.mean(axis=0), tol=1e-3) < basis.shape[1] - 1:
        sizes, horizons = len(np.unique(params)), len(np.unique(tokens))
        problem = f"{sizes} sizes and {horizons} horizons that change in step hide one exponent"
    if problem:
        hint = "" if of == "flops" else ", or fit the law of compute alone"
        raise TableError(problem, where=FORM, fix=f"Add settings of other sizes and horizons{hint}")
    return basis


def _logs(printed: Array, width: int) -> Array:
    """P (B, d, q) of printed parameters (B, d·q)."""
    power = np.array(printed).reshape(len(printed), -1, width)
    power[:, :, 0] = np.log(power[:, :, 0])
    return power


def _printed(power: Array) -> Array:
    """Printed parameters (B, d·q) of P (B, d, q)."""
    shown = np.array(power)
    shown[:, :, 0] = np.exp(np.clip(power[:, :, 0], -700.0, 700.0))
    return np.asarray(shown.reshape(len(shown), -1))


def _names(of: Of, dims: int) -> tuple[str, ...]:
    marks = ("0", *FACTORS[of])
    return tuple(f"{name}_{mark}" for name in ("lr", "batch")[:dims] for mark in marks)


def _formula(of: Of, dims: int) -> str:
    shown = []
    for name, short in (("learning_rate", "lr"), ("batch_tokens", "batch"))[:dims]:
        powers = "".join(f"*{factor}^{short}_{factor}" for factor in FACTORS[of])
        shown.append(f"{name} = {short}_0{powers}")
    return "; ".join(shown)


def _law(
    table: dict[str, Array],
    of: Of,
    optima: Array,
    power: Array,
    draws: Array,
    checked: dict[str, Any] | None,
    curvature: Array | None,
    weight: Array,
) -> HyperparameterLaw:
    """The law with the scatter of the settings' optima about it, weighted as they are (S,)."""
    basis = settings_basis(table["params"], table["tokens"], of)
    off = optima - basis @ power.T
    share = weight / weight.sum()
    freedom = max(1.0 - basis.shape[1] * float(share @ share), 0.1)
    flops = _flops(table)
    names = _names(of, optima.shape[1])
    return HyperparameterLaw(
        form=FORM,
        formula=_formula(of, optima.shape[1]),
        parameters=named(names, _printed(power[None])[0]),
        stderr=named(names, spread(_printed(draws))),
        draws=_printed(draws),
        noise={
            "of": of,
            "scatter": np.sqrt(share @ off**2 / freedom).tolist(),
            "curvature": None if curvature is None else curvature.tolist(),
            "largest": optima[int(np.argmax(flops))].tolist(),
            "transfer": checked,
        },
        objective="lsq",
        n_runs=len(basis),
        domain={
            "params": ends(table["params"]),
            "tokens": ends(table["tokens"]),
            "flops": ends(flops),
        },
        source=(),
        warnings=(checked["says"],) if checked and checked["carry_is_as_good"] else (),
        verdict="supported",
    )


def _flops(table: dict[str, Array]) -> Array:
    return FLOPS_PER_PARAMETER_TOKEN * table["params"] * table["tokens"]
