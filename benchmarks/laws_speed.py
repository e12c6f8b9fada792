"""Processor time of fitting and using laws; prints a table, the least of several rounds.

Usage: python benchmarks/laws_speed.py LAWS_DATA

LAWS_DATA is a folder with `chinchilla.csv` (Besiroglu et al. 2024) and
`mpl_lr_schedule_curves.csv` (Luo et al. 2025).
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from isoflop.laws.fit import Objective, fit, fit_point
from isoflop.laws.forms import CHINCHILLA, Design
from isoflop.laws.records import RunTable


def chinchilla(folder: Path) -> RunTable:
    """Besiroglu et al.'s 240 rows."""
    with open(folder / "chinchilla.csv", newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["excluded_by_besiroglu"] != "1"]
    columns = (np.array([float(r[name]) for r in rows]) for name in ("N", "D", "loss"))
    return RunTable.from_arrays(*columns)


def least(work: Callable[[], object], rounds: int) -> float:
    """Least processor seconds of one call."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def process_seconds(command: list[str], rounds: int) -> tuple[float, float]:
    """Least (wall, processor) seconds of a command as a process."""
    wall, cpu = [], []
    for _ in range(rounds):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - began)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(wall), min(cpu)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    table = chinchilla(Path(sys.argv[1]))
    rows: list[tuple[str, float, str]] = []
    design = Design.of(table.params, table.tokens)
    objectives: tuple[Objective, ...] = ("huber", "lad", "lsq")
    for objective in objectives:
        point = partial(fit_point, table, CHINCHILLA, objective, design, sigma=0.005)
        whole = partial(fit, table, "chinchilla", objective, bootstrap=4000)
        rows.append((f"point fit, {objective}, 240 rows", least(point, 7), "0.025"))
        rows.append((f"with 4,000 resamples, {objective}", least(whole, 3), "3"))
    with tempfile.TemporaryDirectory() as folder:
        law = Path(folder) / "law.json"
        fit(table, "chinchilla", bootstrap=4000).save(law)
        command = [sys.executable, "-m", "isoflop", "laws", "predict", str(law)]
        wall, cpu = process_seconds([*command, "--params", "1e11", "--tokens", "2e12"], 9)
        rows.append(("`isoflop laws predict`, processor", cpu, "-"))
        rows.append(("`isoflop laws predict`, wall", wall, "0.5"))
        rows.append(
            ("`python -c pass`, wall", process_seconds([sys.executable, "-c", "pass"], 9)[0], "-")
        )
    print("| what | seconds | goal |\n|---|---|---|")
    for name, seconds, goal in rows:
        print(f"| {name} | {seconds:.3f} | {goal} |")


if __name__ == "__main__":
    main()
