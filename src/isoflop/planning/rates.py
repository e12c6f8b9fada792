"""Learning rate, batch and schedule of a planned run, from published laws or one of one's own.

Not for fitting such laws (`laws.hyperparameters`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.hyperparameters import HyperparameterLaw

WARMUP_SHARE, MOST_WARMUP_STEPS = 0.01, 2000
DECAY_SHARE = 0.2
"""Last part of a run over which the rate falls (Hägele et al. 2024: 10 to 20 % equal a cosine)."""
TESTED_PARAMS, TESTED_TOKENS = (3e7, 2e9), (1e9, 2e11)
"""Where Step Law's runs lie (Li et al. 2025: 60M to 1B on 2B to 100B tokens), and twice beyond."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run, in the terms of a train recipe's `[optimizer]`."""

    name: str
    warmup_tokens: int
    decay_fraction: float
    final_fraction: float

    def to_dict(self) -> dict[str, Any]:
        """The schedule document of a plan."""
        return asdict(self)


@dataclass(frozen=True)
class Rates:
    """What the laws ask for, before the batch is fitted to devices."""

    learning_rate: float
    batch_tokens: float
    notes: tuple[str, ...]


def rates(params: float, tokens: float, law: Path | None = None) -> Rates:
    """Learning rate and batch of a run.

    Step Law (Li et al. 2025) where its runs lie; elsewhere DeepSeek LLM's (2024), which its
    authors followed up to 67 billion parameters.

    Args:
        params: Without embeddings.
        law: A `law.json` of the form `hyperparameters`, to take instead.

    Raises:
        ArtifactError: `law` is no law.
        RecipeError: `law` says nothing of learning rate or batch.
    """
    from isoflop.laws.hyperparameters import published_law

    if law is not None:
        return _of_file(params, tokens, law)
    inside = all(
        low <= value <= high
        for value, (low, high) in ((params, TESTED_PARAMS), (tokens, TESTED_TOKENS))
    )
    names = ("step-law", "deepseek") if inside else ("deepseek", "step-law")
    (rate, batch), (other_rate, other_batch) = (
        _values(published_law(name), params, tokens) for name in names
    )
    titles = {"step-law": "Step Law (Li et al. 2025)", "deepseek": "DeepSeek LLM (2024)"}
    reason = "" if inside else "; Step Law's runs, 60M to 1B on 2B to 100B tokens, lie elsewhere"
    note = (
        f"learning rate and batch by {titles[names[0]]}{reason}; {titles[names[1]]} would take "
        f"{other_rate:.2g} and {other_batch:.2g} tokens"
    )
    return Rates(rate, batch, (note,))


def _of_file(params: float, tokens: float, path: Path) -> Rates:
    from isoflop.laws.hyperparameters import HyperparameterLaw
    from isoflop.laws.load import load_law

    law = load_law(path)
    if not isinstance(law, HyperparameterLaw):
        raise RecipeError(
            f"a law of the form {law.form} says nothing of learning rate and batch",
            where=str(path),
            fix="Give one of the form hyperparameters: isoflop laws fit --form hyperparameters",
        )
    found = law.predict(params, tokens)
    if found.batch_tokens is None:
        raise RecipeError("this law says nothing of the batch", where=str(path))
    return Rates(
        found.learning_rate.best.value,
        found.batch_tokens.best.value,
        (f"learning rate and batch by {path}",),
    )


def _values(law: HyperparameterLaw, params: float, tokens: float) -> tuple[float, float]:
    found = law.predict(params, tokens)
    batch = found.batch_tokens
    return found.learning_rate.best.value, math.nan if batch is None else batch.best.value


def schedule(steps: int, batch_tokens: int) -> Schedule:
    """Warm-up, a constant rate, and a decay over the last fifth."""
    warmup = min(MOST_WARMUP_STEPS, max(1, math.ceil(WARMUP_SHARE * steps)))
    return Schedule("wsd", warmup * batch_tokens, DECAY_SHARE, 0.0)


def batch_sequences(batch_tokens: float, seq_len: int, devices: int) -> int:
    """Sequences of a step: the nearest power of two that its devices divide.

    Where their number is no power of two, a power of two times its odd part. The basin of the best
    batch is far wider than the rounding.
    """
    odd = devices
    while odd % 2 == 0:
        odd //= 2
    power = max(0, round(math.log2(max(1.0, batch_tokens / seq_len / odd))))
    return int(odd * 2**power)
