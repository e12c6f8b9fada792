"""What goes wrong with forecasts, measured on public tables; prints the figures of docs/laws.md.

Usage: python benchmarks/laws_pitfalls.py LAWS_DATA

LAWS_DATA is a folder with `chinchilla.csv` (Besiroglu et al. 2024), `porian_isoflop.csv` (Porian et
al. 2024) and `mpl_lr_schedule_curves.csv` (Luo et al. 2025).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from isoflop.laws.fit import fit
from isoflop.laws.isoflop import parabolas
from isoflop.laws.records import RunTable

Array = NDArray[np.float64]
CHINCHILLA = (70e9, 1.4e12)
DELTA = 1e-3
STEPS = (
    ("long|kaplan|kaplan|train", "as Kaplan et al.: output layer not counted, training loss"),
    ("long|kaplan|standard|val", "output layer counted, validation loss"),
    ("short|kaplan|standard|val", "warm-up as short as the run"),
    ("short|chinchilla|standard|val", "decay as long as the run"),
    ("short|const|standard|val", "no decay, optimizer tuned for each size"),
)
"""Warm-up, decay, what counts as parameters and the split, and what that changes."""


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def chinchilla(folder: Path) -> RunTable:
    """Besiroglu et al.'s 240 rows."""
    rows = [r for r in rows_of(folder / "chinchilla.csv") if r["excluded_by_besiroglu"] != "1"]
    columns = (np.array([float(r[name]) for r in rows]) for name in ("N", "D", "loss"))
    return RunTable.from_arrays(*columns)


def widths(table: RunTable) -> None:
    """One table, three objectives."""
    print("### Three objectives, one table (240 rows)\n")
    print("| objective | E | alpha | beta | best N for 5.76e23 FLOPs | loss of Chinchilla |")
    print("|---|---|---|---|---|---|")
    for objective in ("huber", "lad", "lsq"):
        law = fit(table, "chinchilla", objective, bootstrap=100)
        e, _, _, alpha, beta = law.parameters.values()
        best = law.optimal(5.76e23).params
        loss = law.predict(*CHINCHILLA).loss
        print(f"| {objective} | {e:.4f} | {alpha:.4f} | {beta:.4f} | {best:.3g} | {loss:.4f} |")


def unfinished(table: RunTable, starts: int = 100) -> None:
    """The usual L-BFGS from random starts, on the sum and on the mean of the same losses."""
    ln_n, ln_d, ln_l = np.log(table.params), np.log(table.tokens), np.log(table.loss)

    def objective(theta: Array) -> tuple[float, Array]:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * ln_n, b - beta * ln_d, np.full_like(ln_n, e)])
        ln = np.logaddexp.reduce(terms, axis=0)
        residual = ln - ln_l
        inside = np.clip(residual, -DELTA, DELTA)
        share = np.exp(terms - ln)
        by = np.stack([share[0], share[1], share[2], -share[0] * ln_n, -share[1] * ln_d])
        return float(np.sum(inside * (residual - 0.5 * inside))), by @ inside

    rng = np.random.default_rng(0)
    start = rng.uniform((0, 0, -1, 0, 0), (25, 25, 1, 2, 2), (starts, 5))
    print(f"\n### The same fit by L-BFGS-B with SciPy's tolerances, {starts} random starts\n")
    print("| objective | starts within 0.1 % of the optimum | best alpha | middle half of alpha |")
    print("|---|---|---|---|")
    found: dict[str, list[Any]] = {}
    for name, scale in (("sum", 1.0), ("mean", 1.0 / len(ln_l))):

        def scaled(theta: Array, by: float = scale) -> tuple[float, Array]:
            value, slope = objective(theta)
            return by * value, by * slope

        found[name] = [minimize(scaled, s, jac=True, method="L-BFGS-B").x for s in start]
    least = min(objective(x)[0] for xs in found.values() for x in xs)
    for name, xs in found.items():
        values = np.array([objective(x)[0] for x in xs])
        alpha = np.array([x[3] for x in xs])
        low, high = np.quantile(alpha, [0.25, 0.75])
        share = np.mean(values <= least * 1.001)
        best = alpha[np.argmin(values)]
        print(f"| {name} | {share:.0%} | {best:.4f} | {low:.3f} to {high:.3f} |")


def counting(folder: Path) -> None:
    """Porian et al.'s road from Kaplan's exponent to Hoffmann's, by approach 2."""
    rows = rows_of(folder / "porian_isoflop.csv")
    print("\n### Exponent of the best size (RefinedWeb; approach 2)\n")
    print("| changed | a | ± |\n|---|---|---|")
    for wanted, says in STEPS:
        kept = [r for r in rows if r["dataset"] == "rw" and r["config"].endswith(f"|{wanted}")]
        kept = [r for r in kept if r["loss"]]
        columns = (np.array([float(r[name]) for r in kept]) for name in ("N", "D", "loss"))
        found = parabolas(RunTable.from_arrays(*columns)).exponents
        print(f"| {says} | {found.a:.3f} | {found.a_stderr:.3f} |")


def midway(folder: Path) -> None:
    """A long cosine read at 24,000 steps against a cosine that ends there."""
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for row in rows_of(folder / "mpl_lr_schedule_curves.csv"):
        name = row["run_id"].removeprefix(row["size_label"] + "_")
        key = (row["size_label"], name)
        curves.setdefault(key, {})[float(row["step"])] = float(row["loss"])
    print("\n### Read before the decay is over\n")
    print("| size | cosine of 24,000 steps ends at | cosine of 72,000, then | too high by |")
    print("|---|---|---|---|")
    for size in ("25M", "100M", "400M"):
        short, long = curves[size, "cosine_24000"], curves[size, "cosine_72000"]
        end = max(short)
        near = min(long, key=lambda step, at=end: abs(step - at))  # type: ignore[misc]
        off = 100 * (long[near] / short[end] - 1)
        print(f"| {size} | {short[end]:.3f} | {long[near]:.3f} | {off:.1f} % |")


def main() -> None:
    """Print every table."""
    folder = Path(sys.argv[1])
    table = chinchilla(folder)
    widths(table)
    unfinished(table)
    midway(folder)
    counting(folder)


if __name__ == "__main__":
    main()
