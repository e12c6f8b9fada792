"""One fit of Chinchilla's law beside scipy's optimiser started once from every point of the grid.

    python benchmarks/laws_peers.py [LAWS_DATA] [--starts 4500]

Hoffmann et al. 2022 (and those who repeat them) minimise the Huber loss of the log residuals from
4,500 starts, one call of scipy's L-BFGS-B each; this is that loop, with the gradient it is usually
given (finite differences) and with the exact one. LAWS_DATA is a folder with `chinchilla.csv`;
without it 240 runs of a known law stand in. Prints CPU seconds and the objective that each reached:
lower is better. Not for what the law says.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import time
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from isoflop.laws.fit import fit_point
from isoflop.laws.forms import CHINCHILLA, Design
from isoflop.laws.records import RunTable

Array = npt.NDArray[np.float64]
DELTA = 1e-3


def runs(folder: Path | None) -> tuple[Array, Array, Array]:
    """(N, D, loss) of 240 runs."""
    if folder is not None:
        with open(folder / "chinchilla.csv", newline="", encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if r["excluded_by_besiroglu"] != "1"]
        n, d, loss = (np.array([float(r[name]) for r in rows]) for name in ("N", "D", "loss"))
        return n, d, loss
    draw = np.random.default_rng(0)
    n, d = 10 ** draw.uniform(7.5, 10, 240), 10 ** draw.uniform(9, 11.5, 240)
    loss = (1.82 + 482 * n**-0.348 + 2085 * d**-0.366) * np.exp(draw.normal(0, 0.005, 240))
    return n, d, loss


def objective(theta: Array, log_n: Array, log_d: Array, log_loss: Array) -> tuple[float, Array]:
    """Huber's loss of log residuals, summed, and its gradient; theta = (a, b, e, alpha, beta)."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    top = terms.max(0)
    shares = np.exp(terms - top)
    total = shares.sum(0)
    shares /= total
    residual = log_loss - (np.log(total) + top)
    near = np.abs(residual) <= DELTA
    value = np.where(near, residual**2 / 2, DELTA * (np.abs(residual) - DELTA / 2)).sum()
    slope = -np.where(near, residual, DELTA * np.sign(residual))
    pull = slope * shares
    return float(value), np.array(
        [pull[0].sum(), pull[1].sum(), pull[2].sum(), -(pull[0] @ log_n), -(pull[1] @ log_d)]
    )


def grid(count: int) -> list[Array]:
    """That many of the 4,500 starts of Hoffmann et al., drawn."""
    axes = (
        np.arange(0, 30, 5), np.arange(0, 30, 5), np.arange(-1, 1.5, 0.5),
        np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5),
    )  # fmt: skip
    whole = [np.array(start, dtype=np.float64) for start in itertools.product(*axes)]
    return whole if count >= len(whole) else random.Random(0).sample(whole, count)


def loop(starts: list[Array], logs: tuple[Array, Array, Array], exact: bool) -> tuple[float, float]:
    """(CPU seconds, best objective) of one call of scipy for each start."""
    began, best = time.process_time(), np.inf
    for start in starts:
        if exact:
            found = minimize(objective, start, args=logs, jac=True, method="L-BFGS-B")
        else:
            value = partial(lambda theta, logs: objective(theta, *logs)[0], logs=logs)
            found = minimize(value, start, method="L-BFGS-B")
        best = min(best, float(found.fun))
    return time.process_time() - began, best


def ours(n: Array, d: Array, loss: Array) -> tuple[float, float]:
    """(CPU seconds, objective) of one fit, basins searched together."""
    table, seconds = RunTable.from_arrays(n, d, loss), []
    design = Design.of(table.params, table.tokens)
    for _ in range(5):
        began = time.process_time()
        point = fit_point(table, CHINCHILLA, "huber", design, sigma=0.005)
        seconds.append(time.process_time() - began)
    return min(seconds), float(point.objective[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--starts", type=int, default=4500)
    arguments = parser.parse_args()
    n, d, loss = runs(arguments.data)
    logs = (np.log(n), np.log(d), np.log(loss))
    starts = grid(arguments.starts)
    seconds, reached = ours(n, d, loss)
    print(f"{len(loss)} runs, {len(starts):,} starts\n")
    print("| fit | CPU seconds | × ours | objective |\n|---|---|---|---|")
    print(f"| isoflop | {seconds:.3f} | 1 | {reached:.8f} |")
    for exact, name in ((True, "exact gradient"), (False, "finite differences")):
        took, best = loop(starts, logs, exact)
        print(
            f"| scipy, one call a start, {name} | {took:.3f} | {took / seconds:,.0f} | {best:.8f} |"
        )


if __name__ == "__main__":
    main()
