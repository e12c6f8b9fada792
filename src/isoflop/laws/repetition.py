"""The data-constrained law and effective data: its form and forecasts; not its fit (data_limits).

Muennighoff et al. 2023, eq. 5–7: of D tokens on a corpus of U unique ones, the R = D/U - 1
repetitions count less and less, and so do parameters beyond the U_N that are optimal for U fresh
tokens:

    D' = U + U·R_D*·(1 - exp(-R/R_D*))          N' = U_N + U_N·R_N*·(1 - exp(-(N/U_N - 1)/R_N*))
    L  = E + (A·N'^-a + B·D'^-b)^g              U_N = min(G·(G·U)^(b/a), N), G = (aA/bB)^(1/(a+b))

Their form has g = 1. R_D* is the number of repetitions after which another one is worth 1/e of
fresh data. The form saturates: it cannot show a loss that rises again, as that of a large model on
few tokens does (their appendix E). So a forecast with more epochs than the table shows is refused
where the model could hold its corpus by heart (`overfits`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.family import Family, check_level
from isoflop.laws.forms import Array
from isoflop.laws.interval import quantiles
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Prediction

FORM = "data-constrained"
FORMULA = "E + (A*N'^-a + B*D'^-b)^g, N' and D' discounted by R_N* and R_D*"
PARAMETERS = ("E", "A", "B", "a", "b", "g", "R_D*", "R_N*")
EPOCH_DRIFT = 0.03
"""Standard deviation of the model error of ln loss per e-fold of epochs beyond the table's: what
the form foretold of 8 to 60 epochs from up to 4 on the runs of Muennighoff et al. 2023."""

LONGER = 1.05
"""Times the most epochs of the table from which on a forecast has more."""
BITS_PER_PARAMETER = 3.6
"""What a parameter can hold of a corpus; test losses turn where a model of this capacity can hold
all of it (Morris et al. 2025, "How much do language models memorize?")."""


@dataclass(frozen=True)
class EffectiveData:
    """What a training set is worth in fresh tokens of the law's own kind."""

    tokens: float
    """Effective tokens: `fresh`·`efficiency`·(1 + `augmentation`)·(worth of the mixture)."""
    fresh: float
    """Fresh tokens that teach as much as the repeated ones."""
    epochs: float


def effective_data(
    tokens: float,
    unique_tokens: float | None = None,
    *,
    repetition: float = 15.4,
    efficiency: float = 1.0,
    augmentation: float = 0.0,
    synthetic_share: float = 0.0,
    synthetic_worth: float = 1.0,
) -> EffectiveData:
    """D_eff = D'·η·(1 + γ)·(1 - s + s·w).

    Args:
        tokens: Tokens seen in training, D.
        unique_tokens: Tokens of the corpus; all are unique when omitted.
        repetition: R_D*, of a fitted law or Muennighoff et al. 2023.
        efficiency: η, what one of these tokens is worth against one of the law's data: filtering
            raises it, noise lowers it; measured as a ratio of tokens at equal loss.
        augmentation: γ, the share of further data that augmentation is worth.
        synthetic_share: s, the share of synthetic tokens.
        synthetic_worth: w, what a synthetic token is worth against a natural one.

    Raises:
        TableError: A value lies outside what it can be.
    """
    unique = tokens if unique_tokens is None else unique_tokens
    for name, value in (
        ("tokens", tokens),
        ("unique_tokens", unique),
        ("repetition", repetition),
        ("efficiency", efficiency),
    ):
        if not (np.isfinite(value) and value > 0.0):
            raise TableError(f"{name} must be positive, not {value:g}")
    for name, value in (("augmentation", augmentation), ("synthetic_worth", synthetic_worth)):
        if not (np.isfinite(value) and value >= 0.0):
            raise TableError(f"{name} must not be negative, but it is {value:g}")
    if not 0.0 <= synthetic_share <= 1.0:
        raise TableError(f"synthetic_share must lie between 0 and 1, not {synthetic_share:g}")
    unique = min(unique, tokens)
    epochs = tokens / unique
    fresh = unique + unique * repetition * -np.expm1(-(epochs - 1.0) / repetition)
    worth = 1.0 - synthetic_share + synthetic_share * synthetic_worth
    return EffectiveData(
        float(fresh * efficiency * (1.0 + augmentation) * worth), float(fresh), epochs
    )


def overfits(params: float, unique_tokens: float, loss: float) -> bool:
    """Whether a model can hold its corpus by heart: its capacity reaches the corpus's code length.

    Args:
        loss: Nats per token: the code length of a token not yet learnt by heart.
    """
    return bool(BITS_PER_PARAMETER * params >= unique_tokens * loss / np.log(2.0))


@dataclass(frozen=True)
class DataLaw(Family):
    """A law of loss in parameters, tokens and unique tokens."""

    NEEDS = ("run_to_run", "drift")

    def predict(
        self,
        params: float,
        tokens: float,
        level: float = 0.9,
        *,
        unique_tokens: float | None = None,
    ) -> Prediction:
        """The loss of a run, with its interval.

        Args:
            params: Parameters.
            tokens: Training tokens seen.
            level: Probability between low and high.
            unique_tokens: Tokens of the corpus; none are repeated when omitted.

        Raises:
            TableError: A value is not positive, or `level` not between 0 and 1; or the model could
                hold the corpus by heart in more epochs than the table has.
        """
        check_level(level)
        unique = tokens if unique_tokens is None else min(unique_tokens, tokens)
        for name, value in (("params", params), ("tokens", tokens), ("unique_tokens", unique)):
            if not (np.isfinite(value) and value > 0.0):
                raise TableError(f"{name} must be positive, not {value:g}")
        at = tuple(np.array([value]) for value in (params, tokens, unique))
        loss = float(np.exp(log_loss(self.values(), *at))[0, 0])
        reach = {
            "params": params,
            "tokens": tokens,
            "flops": FLOPS_PER_PARAMETER_TOKEN * params * tokens,
            "epochs": tokens / unique,
        }
        beyond = {
            name: max(value / self.domain[name][1], self.domain[name][0] / value, 1.0)
            for name, value in reach.items()
        }
        if tokens / unique > self.domain["epochs"][1] * LONGER and overfits(params, unique, loss):
            raise TableError(
                f"{params:.3g} parameters can hold {unique:.3g} tokens by heart "
                f"({BITS_PER_PARAMETER:g} bits per parameter), and {tokens / unique:.3g} epochs "
                f"are more than the {self.domain['epochs'][1]:.3g} of the table: whether such a "
                "run overfits, its runs do not show",
                where=FORM,
                fix="Take a smaller model or more unique tokens, or add runs with as many epochs",
            )
        low, _, high = quantiles(
            log_loss(self.draws, *at)[:, 0],
            np.full(len(self.draws), self.noise["run_to_run"]),
            float(
                np.hypot(
                    self.noise["drift"] * np.log(beyond["flops"]),
                    EPOCH_DRIFT * np.log(beyond["epochs"]),
                )
            ),
            1.0,
            level,
        )
        return Prediction(loss, min(low, loss), max(high, loss), level, beyond)


def log_loss(printed: Array, params: Array, tokens: Array, unique: Array) -> Array:
    """ln L (B, R) of printed parameters (B, 8) at R runs."""
    e, big_a, big_b, a, b, g, r_d, r_n = (printed[:, i : i + 1] for i in range(8))
    ln_a, ln_b = np.log(big_a), np.log(big_b)
    ln_g = (np.log(a) + ln_a - np.log(b) - ln_b) / (a + b)
    ln_n, ln_u = np.log(params), np.log(np.minimum(unique, tokens))
    ln_own = np.minimum(ln_n, ln_g + (b / a) * (ln_g + ln_u))
    size = ln_own + np.log1p(r_n * -np.expm1(-np.expm1(ln_n - ln_own) / r_n))
    data = ln_u + np.log1p(r_d * -np.expm1(-np.maximum(tokens / unique - 1.0, 0.0) / r_d))
    return np.asarray(np.logaddexp(np.log(e), g * np.logaddexp(ln_a - a * size, ln_b - b * data)))
