"""What every law beyond the loss surface shares: its document and its solver; no law itself.

A family (hyper-parameters, tasks, mixture, experts, precision) is a frozen dataclass under
`Family`, whose fields are the keys of `law.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.core.artifact import write_atomic
from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.forms import Array
from isoflop.laws.predict import KEYS, render_law, rounded, with_hash

FEWEST_REFITS = 50
CHUNK_ELEMENTS = 200_000  # B·R·K per chunk: the working arrays of one stay in cache
Model = Callable[[Array], tuple[Array, Array]]
"""theta (B, K) -> values (B, R) and their derivatives (B, R, K)."""


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that is to hold it."""

    value: float
    low: float
    high: float
    level: float

    def to_dict(self) -> dict[str, float]:
        """The estimate as the command line prints it."""
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}


@dataclass(frozen=True)
class Family:
    """The keys of `law.json`; see DESIGN §5."""

    NEEDS: ClassVar[tuple[str, ...]] = ()
    """Keys of `noise` that a law of the kind reads."""

    form: str
    formula: str
    parameters: dict[str, float]
    stderr: dict[str, float]
    draws: Array
    """(B, K): refits behind `stderr`, columns in the order of `parameters`."""
    noise: dict[str, Any]
    """What the intervals need besides the draws."""
    objective: str
    n_runs: int
    domain: dict[str, tuple[float, float]]
    source: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    verdict: str

    @property
    def supported(self) -> bool:
        """Whether the table determines the law well enough to be used beyond it."""
        return self.verdict == "supported"

    def to_dict(self) -> dict[str, Any]:
        """The document of `law.json`, with its hash."""
        document = {key: getattr(self, key) for key in KEYS}
        document |= {
            "parameters": dict(self.parameters),
            "stderr": dict(self.stderr),
            "draws": rounded(self.draws),
            "noise": {**self.noise, "draws": []},
            "domain": {name: list(ends) for name, ends in self.domain.items()},
            "source": [dict(s) for s in self.source],
            "warnings": list(self.warnings),
        }
        return with_hash(document)

    def save(self, path: Path | str) -> None:
        """Write `law.json`, atomically."""
        write_atomic(Path(path), render_law(self.to_dict()))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The law of a document that `to_dict` made.

        Raises:
            ArtifactError: A key is missing or holds what no law of ours holds.
        """
        absent = [key for key in KEYS if key not in document]
        if absent:
            raise ArtifactError(
                f"this is not a law: it has no {', '.join(absent)}",
                fix="Give the file that `isoflop laws fit -o` wrote",
            )
        try:
            lacking = [key for key in cls.NEEDS if key not in document["noise"]]
            if lacking:
                raise ValueError(f"its noise has no {', '.join(lacking)}")
            parameters = {k: float(v) for k, v in document["parameters"].items()}
            return cls(
                form=document["form"],
                formula=document["formula"],
                parameters=parameters,
                stderr={k: float(v) for k, v in document["stderr"].items()},
                draws=np.array(document["draws"], dtype=np.float64).reshape(-1, len(parameters)),
                noise={k: v for k, v in document["noise"].items() if k != "draws"},
                objective=document["objective"],
                n_runs=int(document["n_runs"]),
                domain={k: (float(v[0]), float(v[1])) for k, v in document["domain"].items()},
                source=tuple(document["source"]),
                warnings=tuple(document["warnings"]),
                verdict=document["verdict"],
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ArtifactError(
                f"this law cannot be read: {_said(error)}",
                fix="The file was changed, or another version wrote it; fit the law again",
            ) from None

    def values(self) -> Array:
        """The printed parameters as one row, (1, K)."""
        return np.array([list(self.parameters.values())])


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"


def named(names: Sequence[str], values: Array) -> dict[str, float]:
    """The values (K,) under their names."""
    return dict(zip(names, map(float, values), strict=True))


def spread(draws: Array) -> Array:
    """Standard deviation (K,) of draws (B, K), the outermost 0.5 % of each column drawn in."""
    low, high = np.quantile(draws, [0.005, 0.995], axis=0)
    return np.asarray(np.std(np.clip(draws, low, high), axis=0, ddof=1))


def columns(where: str, **given: ArrayLike) -> dict[str, Array]:
    """The columns as arrays of one length, all finite.

    Raises:
        TableError: Lengths differ, or a value is missing, infinite or, except in a score or a
            degradation, not positive.
    """
    arrays = {name: np.asarray(v, dtype=np.float64).ravel() for name, v in given.items()}
    lengths = {name: len(v) for name, v in arrays.items()}
    if len(set(lengths.values())) != 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise TableError(f"the columns have different lengths: {counted}", where=where)
    for name, values in arrays.items():
        bad = ~np.isfinite(values) if name == "score" else ~(np.isfinite(values) & (values > 0.0))
        if bad.any():
            row = int(np.argmax(bad))
            raise TableError(
                f"{name} is {values[row]:g} in row {row} ({int(bad.sum())} such rows)",
                where=where,
                fix="Leave these rows out, or correct them",
            )
    return arrays


def check_level(level: float) -> None:
    """Raise TableError unless the level lies between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise TableError(f"level must lie between 0 and 1, not {level:g}", fix="Try 0.9")


def check_refits(bootstrap: int) -> None:
    """Raise TableError where there are too few refits for an interval."""
    if bootstrap < FEWEST_REFITS:
        raise TableError(
            f"{bootstrap} refits are too few for an interval",
            where="bootstrap",
            fix=f"Ask for at least {FEWEST_REFITS}",
        )


def ends(values: Array) -> tuple[float, float]:
    """Smallest and largest."""
    return float(values.min()), float(values.max())


@dataclass(frozen=True)
class Beliefs:
    """Independent normal beliefs about the coordinates; precision 0 says nothing."""

    centre: Array
    """(K,) or (B, K)."""
    precision: Array
    """(K,), in units of the weighted squared residuals."""


def fit_curves(
    model: Model,
    target: Array,
    weight: Array,
    start: Array,
    beliefs: Beliefs | None = None,
    iterations: int = 80,
) -> tuple[Array, Array]:
    """Many curves fitted at once: B times the least sum of weight·(value - target)² (and of what
    departs from the beliefs), by Levenberg–Marquardt steps.

    Args:
        model: The curve.
        target: (R,) or (B, R).
        weight: (R,) or (B, R); how often each run counts in a resample.
        start: (B, K).

    Returns:
        theta (B, K) and objective (B,).
    """
    count, size = start.shape
    beliefs = beliefs or Beliefs(np.zeros(size), np.zeros(size))
    runs = target.shape[-1]
    target = np.broadcast_to(target, (count, runs))
    root = np.sqrt(np.broadcast_to(weight, (count, runs)))
    centre = np.broadcast_to(beliefs.centre, (count, size))
    step = max(1, CHUNK_ELEMENTS // (runs * size))
    parts = [
        _fit_chunk(model, target[i], root[i], start[i], centre[i], beliefs.precision, iterations)
        for i in (slice(first, first + step) for first in range(0, count, step))
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _fit_chunk(
    model: Model,
    target: Array,
    root: Array,
    start: Array,
    centre: Array,
    precision: Array,
    iterations: int,
) -> tuple[Array, Array]:
    theta = np.array(start)
    count, size = theta.shape

    def evaluate(at: Array, rows: NDArray[np.intp]) -> tuple[Array, Array, Array]:
        values, jacobian = model(at)
        residual = (values - target[rows]) * root[rows]
        off = at - centre[rows]
        objective = np.sum(residual**2, axis=1) + np.sum(precision * off**2, axis=1)
        return residual, jacobian * root[rows][:, :, None], np.asarray(objective)

    active = np.arange(count)
    residual, jacobian, best = evaluate(theta, active)
    damping = np.full(count, 1e-3)
    for _ in range(iterations):
        transposed = jacobian.swapaxes(1, 2)
        normal = transposed @ jacobian + np.diag(precision)
        gradient = (transposed @ residual[:, :, None])[:, :, 0]
        gradient += precision * (theta[active] - centre[active])
        scale = np.einsum("bkk->bk", normal)
        # A coordinate that no run moves still needs a finite step.
        floor = 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300
        system = normal + (damping[active, None] * scale + floor)[:, :, None] * np.eye(size)
        move = -np.linalg.solve(system, gradient[:, :, None])[:, :, 0]
        trial = theta[active] + np.clip(move, -2.0, 2.0)
        new_residual, new_jacobian, value = evaluate(trial, active)
        old = best[active]
        better = value < old
        theta[active[better]], best[active[better]] = trial[better], value[better]
        damping[active] = np.where(
            better, damping[active] * 0.2, np.maximum(damping[active] * 5.0, 1e-6)
        )
        residual = np.where(better[:, None], new_residual, residual)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        stuck = ~better & ((damping[active] > 1e8) | (np.abs(move).max(axis=1) < 1e-12))
        done = stuck | (better & (old - value <= 1e-14 * old))
        if done.all():
            break
        residual, jacobian, active = residual[~done], jacobian[~done], active[~done]
    return theta, best


def resamples(groups: NDArray[Any], count: int, rng: np.random.Generator) -> Array:
    """How often each row counts in resamples of whole groups with replacement; (count, R)."""
    labels, member = np.unique(groups, return_inverse=True)
    drawn = rng.multinomial(len(labels), np.full(len(labels), 1.0 / len(labels)), size=count)
    return drawn.astype(np.float64)[:, member]
