"""The literature's laws and its models, with sources; not for fitting, and no figure is ours.

The figures are in `published_laws.json` and `published_models.json` beside this module. A figure
that its authors did not publish is None there, and stays None.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.forms import CHINCHILLA, Array, printed_loss
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Optimal, Prediction, best_sizes
from isoflop.laws.repetition import log_loss

HERE = Path(__file__).parent
DRAWS = 2000
FORMULAS = {
    "surface": "E + (A*N^-a + B*D^-b)^g",
    "data-constrained": "E + (A*N'^-a + B*D'^-b)^g, N' and D' discounted by R_N* and R_D*",
    "power-n": "E + (N_c/N)^alpha_N",
    "power-d": "E + (D_c/D)^alpha_D",
    "power-c": "E + (C_c/C)^alpha_C",
    "allocation": "N_opt = k*C^a",
    "hyperparameters": "powers of N and D",
}


@dataclass(frozen=True)
class PublishedPrediction(Prediction):
    """A loss of a published law; `low` and `high` are NaN where nothing to derive them from was
    published."""

    basis: str
    """Where the interval comes from, or why there is none."""

    def to_dict(self) -> dict[str, Any]:
        """The prediction document; an absent loss or interval is null."""
        document = super().to_dict()
        for name in ("loss", "low", "high"):
            document[name] = None if np.isnan(document[name]) else document[name]
        return {**document, "basis": self.basis}


@dataclass(frozen=True)
class PublishedLaw:
    """A law as its authors printed it."""

    name: str
    title: str
    kind: str
    """`surface`, `data-constrained`, `power-n`, `power-d`, `power-c`, `allocation` or
    `hyperparameters`."""
    parameters: dict[str, float]
    stderr: dict[str, float]
    """Published standard errors; empty where there are none."""
    allocation: dict[str, float] | None
    """`coefficient` k and `exponent` a of N_opt = k·C^a as published; None where it follows from
    the surface."""
    domain: dict[str, tuple[float, float]]
    """Ranges of the runs behind it, as far as stated."""
    counts: str
    """What N counts."""
    unit: str
    """Of the loss."""
    source: str
    note: str
    aliases: tuple[str, ...] = ()
    covariance: tuple[tuple[float, ...], ...] | None = None
    """Of the errors of ln E, ln A, ln B and the exponents, refitted by us where the runs are public
    (see `covariance_source`); standard errors alone are all that is published."""
    covariance_source: str = ""

    @property
    def form(self) -> str:
        """The kind, under the name that fitted laws use."""
        return self.kind

    @property
    def formula(self) -> str:
        """The formula of its kind, without the terms that this law lacks."""
        if self.kind == "surface" and "g" not in self.parameters:
            return CHINCHILLA.formula
        whole = FORMULAS[self.kind]
        return whole.removeprefix("E + ") if "E" not in self.parameters else whole

    @property
    def supported(self) -> bool:
        """True: whether its authors' table supports it is theirs to say."""
        return True

    @property
    def verdict(self) -> str:
        """`supported`; the warnings say what is known against it."""
        return "supported"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before using it."""
        return (f"N counts {self.counts}; loss in {self.unit}", self.note)

    def predict(
        self,
        params: float,
        tokens: float,
        level: float = 0.9,
        *,
        unique_tokens: float | None = None,
    ) -> PublishedPrediction:
        """The loss that the law gives for a run.

        Args:
            params: Parameters, counted as `counts` says.
            tokens: Training tokens seen.
            level: Probability between low and high, where an interval can be derived.
            unique_tokens: Tokens of the corpus; only `muennighoff` knows repeated ones.

        Raises:
            TableError: The law has no loss formula, knows no repeated tokens, or a value is not
                positive.
        """
        if not 0.0 < level < 1.0:
            raise TableError(f"level must lie between 0 and 1, not {level:g}", fix="Try 0.9")
        for name, value in (("params", params), ("tokens", tokens)):
            if not (np.isfinite(value) and value > 0.0):
                raise TableError(f"{name} must be positive, not {value:g}")
        if self.kind in ("allocation", "hyperparameters"):
            raise TableError(
                f"{self.title} published no formula for the loss",
                where=self.name,
                fix="Take besiroglu, hoffmann-1 or a law fitted to your own runs",
            )
        if unique_tokens is not None and unique_tokens < tokens and self.kind != "data-constrained":
            raise TableError(
                f"{self.title} knows no repeated tokens", where=self.name, fix="Take muennighoff"
            )
        if unique_tokens is not None and not unique_tokens > 0.0:
            raise TableError(f"unique_tokens must be positive, not {unique_tokens:g}")
        unique = tokens if unique_tokens is None else min(unique_tokens, tokens)
        loss = float(self._losses(self._printed(), params, tokens, unique)[0])
        if self.stderr:
            drawn = self._losses(self._draws(), params, tokens, unique)
            low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
            basis = (
                "published standard errors, taken as independent because their correlations are "
                "not published: wider than the fit warrants; noise of a run not included"
            )
            if self.covariance is not None:
                basis = f"{self.covariance_source}; noise of a run not included"
        else:
            low = high = np.nan
            basis = "no interval: no standard errors were published"
        beyond = self._beyond(params, tokens, tokens / unique)
        return PublishedPrediction(loss, float(low), float(high), level, beyond, basis)

    def optimal(self, flops: float, level: float = 0.9) -> Optimal:
        """Best size and horizon for a budget: as published, else from the surface.

        Raises:
            TableError: `flops` is not positive, or the law says nothing of allocation.
        """
        if not (np.isfinite(flops) and flops > 0.0):
            raise TableError(f"flops must be positive, not {flops:g}")
        product = flops / FLOPS_PER_PARAMETER_TOKEN
        if self.allocation is not None:
            share = self.allocation["exponent"]
            params = self.allocation["coefficient"] * flops**share
        elif self.kind in ("surface", "data-constrained"):
            _, big_a, big_b, a, b, *_ = self.parameters.values()
            share = b / (a + b)
            ln_g = (np.log(a * big_a) - np.log(b * big_b)) / (a + b)
            params = float(np.exp(ln_g + share * np.log(product)))
        else:
            raise TableError(f"{self.title} says nothing of allocation", where=self.name)
        tokens = product / params
        if self.kind == "allocation":
            nothing = PublishedPrediction(
                *(np.nan, np.nan, np.nan, level, self._beyond(params, tokens, 1.0)),
                basis="no loss: only the allocation was published",
            )
            loss: Prediction = nothing
        else:
            loss = self.predict(params, tokens, level)
        ends = None
        if self.stderr and self.allocation is None and self.kind in ("surface", "data-constrained"):
            drawn, _ = best_sizes(self._draws(), flops)
            low, high = np.exp(np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0]))
            ends = (float(low), float(high))
        return Optimal(params, tokens, flops, loss, {"a": share, "b": 1.0 - share}, ends)

    def to_dict(self) -> dict[str, Any]:
        """The law as the command line prints it."""
        return {**asdict(self), "formula": self.formula}

    def _printed(self) -> Array:
        """The parameters as one row (1, K)."""
        return np.array([list(self.parameters.values())])

    def _draws(self) -> Array:
        """(DRAWS, K): positive parameters spread by their published standard errors."""
        rng = np.random.default_rng(0)
        values = self._printed()[0]
        normal = rng.standard_normal((DRAWS, len(values)))
        if self.covariance is not None:
            moved = normal @ np.linalg.cholesky(np.array(self.covariance)).T
            scales = np.exp(np.log(values[:3]) + moved[:, :3])
            return np.column_stack([scales, values[3:] + moved[:, 3:]])
        relative = np.array([self.stderr.get(name, 0.0) for name in self.parameters]) / values
        # Lognormal with the published mean and spread, so that no draw is negative.
        width = np.sqrt(np.log1p(relative**2))
        return np.asarray(np.exp(np.log(values) - 0.5 * width**2 + width * normal))

    def _losses(self, printed: Array, params: float, tokens: float, unique: float) -> Array:
        if self.kind == "surface":
            return printed_loss(printed, params, tokens)
        if self.kind == "data-constrained":
            at = (np.array([value]) for value in (params, tokens, unique))
            return np.asarray(np.exp(log_loss(printed, *at))[:, 0])
        axis = {
            "power-n": params,
            "power-d": tokens,
            "power-c": FLOPS_PER_PARAMETER_TOKEN * params * tokens,
        }[self.kind]
        scale, alpha = printed[:, -2], printed[:, -1]
        floor = printed[:, 0] if printed.shape[1] == 3 else np.zeros(len(printed))
        return np.asarray(floor + (scale / axis) ** alpha)

    def _beyond(self, params: float, tokens: float, epochs: float) -> dict[str, float]:
        reach = {
            "params": params,
            "tokens": tokens,
            "flops": FLOPS_PER_PARAMETER_TOKEN * params * tokens,
            "epochs": epochs,
        }
        return {
            name: max(reach[name] / high, low / reach[name], 1.0)
            for name, (low, high) in self.domain.items()
        }


@dataclass(frozen=True)
class KnownModel:
    """A model as its makers described it; None where they did not."""

    name: str
    year: int
    params: float | None
    active_params: float | None
    """Parameters used per token, where they are fewer (mixtures of experts)."""
    tokens: float | None
    flops: float | None
    """Training FLOPs as published."""
    source: str
    note: str
    checked: str = ""
    """Address of a page on which the figures were looked up; empty where they were not."""

    @property
    def tokens_per_param(self) -> float | None:
        """Tokens over parameters, of a mixture of experts over the active ones."""
        used = self.active_params or self.params
        return None if used is None or self.tokens is None else self.tokens / used

    @property
    def compute(self) -> float | None:
        """Published FLOPs, else 6·N·D with the active parameters; None where either is unknown."""
        used = self.active_params or self.params
        if self.flops is not None or used is None or self.tokens is None:
            return self.flops
        return FLOPS_PER_PARAMETER_TOKEN * used * self.tokens

    def to_dict(self) -> dict[str, Any]:
        """The model as the command line prints it."""
        return {**asdict(self), "tokens_per_param": self.tokens_per_param, "compute": self.compute}


@dataclass(frozen=True)
class Standing:
    """Where a model lies against the optimum of a law."""

    model: KnownModel
    law: str
    optimal_params: float
    optimal_tokens: float
    size_ratio: float
    """Its (active) parameters over the best for its compute: below 1 it was trained longer than
    its training compute alone would ask for."""
    excess_loss: float | None
    """Relative loss above that of the best division of the same compute, by the law; None where the
    law has no loss."""


@cache
def published_laws() -> tuple[PublishedLaw, ...]:
    """The literature's laws, in the order of their publication."""
    raw = json.loads((HERE / "published_laws.json").read_text(encoding="utf-8"))
    return tuple(
        PublishedLaw(
            **{
                **entry,
                "aliases": tuple(entry["aliases"]),
                "covariance": _rows(entry.get("covariance")),
                "domain": {k: (float(v[0]), float(v[1])) for k, v in entry["domain"].items()},
            }
        )
        for entry in raw
    )


def _rows(matrix: list[list[float]] | None) -> tuple[tuple[float, ...], ...] | None:
    return None if matrix is None else tuple(tuple(map(float, row)) for row in matrix)


def published_law(name: str) -> PublishedLaw:
    """The law of that name or alias, case ignored.

    Raises:
        TableError: There is no such law.
    """
    known = {alias: law for law in published_laws() for alias in (law.name, *law.aliases)}
    asked = name.lower()
    if asked not in known:
        close = get_close_matches(asked, known, n=1)
        raise TableError(
            f"there is no published law {name!r}",
            fix=(f"Did you mean {close[0]}? " if close else "")
            + f"They are {', '.join(law.name for law in published_laws())}",
        )
    return known[asked]


@cache
def known_models() -> tuple[KnownModel, ...]:
    """The field's models, by family."""
    raw = json.loads((HERE / "published_models.json").read_text(encoding="utf-8"))
    return tuple(KnownModel(**entry) for entry in raw)


def standing(model: KnownModel, law: PublishedLaw) -> Standing | None:
    """Where the model lies against the law's optimum for 6·N·D; None if N or D is not public.

    Raises:
        TableError: The law says nothing of allocation.
    """
    used = model.active_params or model.params
    if used is None or model.tokens is None:
        return None
    best = law.optimal(FLOPS_PER_PARAMETER_TOKEN * used * model.tokens)
    excess = None
    if law.kind in ("surface", "data-constrained"):
        # Against the surface's own minimum: a published allocation need not be it.
        floor = _surface_minimum(law, best.flops)
        excess = law.predict(used, model.tokens).loss / floor - 1.0
    return Standing(model, law.name, best.params, best.tokens, used / best.params, excess)


def _surface_minimum(law: PublishedLaw, flops: float) -> float:
    _, big_a, big_b, a, b, *_ = law.parameters.values()
    ln_g = (np.log(a * big_a) - np.log(b * big_b)) / (a + b)
    params = float(np.exp(ln_g + b / (a + b) * np.log(flops / FLOPS_PER_PARAMETER_TOKEN)))
    return law.predict(params, flops / FLOPS_PER_PARAMETER_TOKEN / params).loss
