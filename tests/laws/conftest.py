"""Public training curves, where the shared data are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from isoflop.laws.curve_fit import Curve
from isoflop.laws.schedule_terms import Schedule

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "laws"


@pytest.fixture(scope="session")
def public_curves() -> dict[str, dict[str, Curve]]:
    """Curves by size (25M, 100M, 400M) and schedule (Luo et al. 2025)."""
    path = SHARED / "mpl_lr_schedule_curves.csv"
    if not path.exists():
        pytest.skip("the shared data are not here")
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            size = row["size_label"]
            key = size, row["run_id"].removeprefix(f"{size}_")
            rows.setdefault(key, []).append(
                (float(row["step"]), float(row["lr"]), float(row["loss"]))
            )
    found: dict[str, dict[str, Curve]] = {"25M": {}, "100M": {}, "400M": {}}
    for (size, name), points in rows.items():
        step, rate, loss = np.array(points).T
        found[size][name] = Curve(f"{size}_{name}", step, loss, Schedule(step, rate, 2160.0))
    return found
