"""A fitted law: what it says of other runs, and its file `law.json`; not for fitting one.

Imports numpy alone, so that a forecast from a file costs no more than reading the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.artifact import read_json, sha256_json, write_atomic
from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.forms import GAMMA, Array, printed_loss
from isoflop.laws.interval import Noise, quantiles

FLOPS_PER_PARAMETER_TOKEN = 6.0
DIGITS = 9
AUTO = "auto"
KEYS = (
    *("form", "formula", "parameters", "stderr", "draws", "noise", "objective", "n_runs"),
    *("domain", "source", "warnings", "verdict"),
)


@dataclass(frozen=True)
class Prediction:
    """The loss promised for a run."""

    loss: float
    """The law's value, in the unit of the table's losses (nats per token)."""
    low: float
    high: float
    level: float
    """Probability that a run made like those of the table ends between low and high."""
    extrapolation: dict[str, float]
    """`params`, `tokens`, `flops`: how many times beyond the table's runs; 1 among them."""

    def to_dict(self) -> dict[str, Any]:
        """The prediction document of the command line."""
        return {
            "loss": self.loss,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "extrapolation": dict(self.extrapolation),
        }


@dataclass(frozen=True)
class Optimal:
    """The best division of a compute budget between size and data."""

    params: float
    tokens: float
    flops: float
    loss: Prediction
    exponents: dict[str, float]
    """`a` of params ∝ flops^a and `b` of tokens ∝ flops^b; a + b = 1."""
    params_ends: tuple[float, float] | None = None
    """Where the best size lies at the level of `loss`, over the laws that the table allows; None
    where a law knows no spread. The best horizon is flops / 6 over it."""

    def to_dict(self) -> dict[str, Any]:
        """The optimal document of the command line."""
        return {
            "params": self.params,
            "tokens": self.tokens,
            "flops": self.flops,
            "loss": self.loss.to_dict(),
            "exponents": dict(self.exponents),
        }


@dataclass(frozen=True)
class Law:
    """A law fitted by `isoflop.laws.fit`, or read from `law.json`."""

    form: str
    formula: str
    parameters: dict[str, float]
    stderr: dict[str, float]
    draws: Array
    """(B, K): refits behind `stderr`, columns in the order of `parameters`."""
    noise: Noise
    allowed: Array
    """(B', 7): the laws that the table allows, as E, A, B, a, b, g of the gamma form and the
    run-to-run noise of each; intervals come from these (`interval`)."""
    objective: str
    n_runs: int
    domain: dict[str, tuple[float, float]]
    """`params`, `tokens`, `flops`: smallest and largest of the table. FLOPs are 6·params·tokens
    here and in every forecast, so that distances compare like with like whatever a table counts."""
    source: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    verdict: str
    """`supported`, or `unsupported: ` with the reason and the run that would help most."""
    members: tuple[dict[str, Any], ...] = ()
    """Of the form `auto`: form, relevance, share and roll-out score of each law averaged
    (`averaging.Member`); `parameters` are those of the first, `predict` speaks for all."""
    beliefs: dict[str, float] | None = None
    """What the weak beliefs did to a forecast (`beliefs.Effect`); None where they were off."""

    @property
    def supported(self) -> bool:
        """Whether the table determines the law well enough to forecast beyond it."""
        return self.verdict == "supported"

    def predict(self, params: float, tokens: float, level: float = 0.9) -> Prediction:
        """The loss of a run of `params` parameters on `tokens` tokens, with its interval.

        Raises:
            TableError: `params` or `tokens` is not positive, or `level` not between 0 and 1.
        """
        for name, value in (("params", params), ("tokens", tokens)):
            if not (np.isfinite(value) and value > 0.0):
                raise TableError(f"{name} must be positive, not {value:g}")
        if not 0.0 < level < 1.0:
            raise TableError(f"level must lie between 0 and 1, not {level:g}", fix="Try 0.9")
        flops = FLOPS_PER_PARAMETER_TOKEN * params * tokens
        drawn = np.log(printed_loss(self.allowed[:, : GAMMA.size], params, tokens))
        centre = float(np.median(drawn))
        values = np.array([list(self.parameters.values())])
        averaged = self.form == AUTO
        loss = float(np.exp(centre) if averaged else printed_loss(values, params, tokens)[0])
        widen = self.noise.widen * self.noise.own
        low, _, high = quantiles(
            centre + widen * (drawn - centre),
            widen * self.noise.at(centre) * self.allowed[:, GAMMA.size],
            widen * self.noise.drift,
            float(np.log(flops / self.domain["flops"][1])),
            level,
        )
        beyond = {
            name: times_beyond(value, self.domain[name])
            for name, value in (("params", params), ("tokens", tokens), ("flops", flops))
        }
        # The form asked for may leave the range that the wider family allows; the promise then
        # covers both rather than hide the disagreement.
        return Prediction(loss, min(low, loss), max(high, loss), level, beyond)

    def optimal(self, flops: float, level: float = 0.9) -> Optimal:
        """Size and horizon with the lowest loss for 6·params·tokens = `flops`.

        With G = (aA/bB)^(1/(a+b)): params = G (C/6)^(b/(a+b)), tokens = (C/6)^(a/(a+b)) / G
        (Hoffmann et al. 2022, eq. 4). The gamma form has the same optimum, because its power g is
        monotone: only A·N^-a + B·D^-b has to be least.

        Raises:
            TableError: `flops` is not positive.
        """
        if not (np.isfinite(flops) and flops > 0.0):
            raise TableError(f"flops must be positive, not {flops:g}")
        drawn, shares = best_sizes(self.allowed if self.form == AUTO else self.draws, flops)
        ends = np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0])
        if self.form != AUTO:
            drawn, shares = best_sizes(np.array([list(self.parameters.values())]), flops)
        # The median over the laws averaged; a single law is its own median.
        params, share = float(np.exp(np.median(drawn))), float(np.median(shares))
        tokens = flops / FLOPS_PER_PARAMETER_TOKEN / params
        low, high = np.exp(ends)
        return Optimal(
            params,
            tokens,
            flops,
            self.predict(params, tokens, level),
            {"a": share, "b": 1.0 - share},
            (min(float(low), params), max(float(high), params)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The document of `law.json`, with its hash."""
        document = {
            "form": self.form,
            "formula": self.formula,
            "parameters": dict(self.parameters),
            "stderr": dict(self.stderr),
            "draws": rounded(self.draws),
            "noise": {
                "run_to_run": self.noise.run_to_run,
                "degrees_of_freedom": self.noise.degrees,
                "drift": self.noise.drift,
                "relevance": self.noise.relevance,
                "low": self.noise.low,
                "widen": self.noise.widen,
                "own": self.noise.own,
                "members": [dict(m) for m in self.members],
                "beliefs": None if self.beliefs is None else dict(self.beliefs),
                "form": GAMMA.name,
                "columns": [*GAMMA.parameters, "run_to_run"],
                "draws": rounded(self.allowed),
            },
            "objective": self.objective,
            "n_runs": self.n_runs,
            "domain": {name: list(ends) for name, ends in self.domain.items()},
            "source": [dict(s) for s in self.source],
            "warnings": list(self.warnings),
            "verdict": self.verdict,
        }
        return with_hash(document)

    def save(self, path: Path | str) -> None:
        """Write `law.json`, atomically."""
        write_atomic(Path(path), render_law(self.to_dict()))


def best_sizes(printed: Array, flops: float) -> tuple[Array, Array]:
    """ln of the best size for a budget and its exponent, (B,) each, of laws (B, 5 or more) whose
    columns begin E, A, B, a, b (Hoffmann et al. 2022, eq. 4)."""
    _, big_a, big_b, a, b = printed[:, :5].T
    shares = b / (a + b)
    ln_g = (np.log(a) + np.log(big_a) - np.log(b) - np.log(big_b)) / (a + b)
    return ln_g + shares * np.log(flops / FLOPS_PER_PARAMETER_TOKEN), shares


def load_law(path: Path | str) -> Law:
    """Read a `law.json`.

    Raises:
        ArtifactError: The file is missing, damaged, or not a law that this version reads.
    """
    raw = read_json(Path(path))
    if not isinstance(raw, dict):
        raise ArtifactError("this is not a law: the file holds no JSON object", where=str(path))
    absent = [key for key in KEYS if key not in raw]
    if absent:
        raise ArtifactError(
            f"this is not a law: it has no {', '.join(absent)}",
            where=str(path),
            fix="Give the file that `isoflop laws fit -o` wrote",
        )
    try:
        noise = raw["noise"]
        law = Law(
            form=raw["form"],
            formula=raw["formula"],
            parameters={k: float(v) for k, v in raw["parameters"].items()},
            stderr={k: float(v) for k, v in raw["stderr"].items()},
            draws=np.array(raw["draws"], dtype=np.float64),
            noise=Noise(
                noise["run_to_run"],
                noise["degrees_of_freedom"],
                noise["drift"],
                noise.get("relevance", 0.0),
                noise.get("low", 1.0),
                noise.get("widen", 1.0),
                noise.get("own", 1.0),
            ),
            allowed=np.array(noise["draws"], dtype=np.float64).reshape(-1, GAMMA.size + 1),
            objective=raw["objective"],
            n_runs=int(raw["n_runs"]),
            domain={k: (float(v[0]), float(v[1])) for k, v in raw["domain"].items()},
            source=tuple(raw["source"]),
            warnings=tuple(raw["warnings"]),
            verdict=raw["verdict"],
            members=tuple(noise.get("members", ())),
            beliefs=noise.get("beliefs"),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtifactError(
            f"this law cannot be read: {type(error).__name__} {error}",
            where=str(path),
            fix="The file was changed, or another version wrote it; fit the law again",
        ) from None
    check_hash(raw, path)  # last: what is missing is told by its name
    return law


def render_law(document: dict[str, Any]) -> str:
    """The text of `law.json`: indented, with one draw a line."""
    marks: dict[str, str] = {}

    def mark(rows: list[list[float]], indent: str) -> str:
        name = f"@draws{len(marks)}@"
        lines = f",\n{indent}  ".join(json.dumps(row, allow_nan=False) for row in rows)
        marks[f'"{name}"'] = f"[\n{indent}  {lines}\n{indent}]"
        return name

    noise = {**document["noise"], "draws": mark(document["noise"]["draws"], "    ")}
    whole = {**document, "draws": mark(document["draws"], "  "), "noise": noise}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, rows in marks.items():
        text = text.replace(name, rows)
    return text


def with_hash(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a law and the hash of all of it."""
    return {**document, "sha256": sha256_json(document)}


def check_hash(document: Mapping[str, Any], path: Path | str) -> None:
    """Compare a law with the hash in it; one without a hash is somebody else's and passes.

    Raises:
        ArtifactError: It was changed after it was written.
    """
    told = document.get("sha256")
    if told is None:
        return
    if told != sha256_json({key: value for key, value in document.items() if key != "sha256"}):
        raise ArtifactError(
            "the law differs from the hash taken when it was written",
            where=str(path),
            fix="Fit it again, restore it from a copy, or take `sha256` out if you changed it",
        )


def rounded(draws: Array) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in draws.tolist()]


def times_beyond(value: float, ends: tuple[float, float]) -> float:
    """How many times a value lies beyond either end of a range; 1 within it."""
    return max(value / ends[1], ends[0] / value, 1.0)
