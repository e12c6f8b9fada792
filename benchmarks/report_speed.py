"""How long a report of 100,000 metric lines takes, and how large its page is.

    python benchmarks/report_speed.py

CPU seconds, the least of three, without starting Python; not for what the page says.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from isoflop.reporting.collect import collect
from isoflop.reporting.page import build

LINES, RUNS = 100_000, (1, 10)


def write_run(directory: Path, lines: int, seed: int) -> None:
    """A run whose metrics have every key that training writes."""
    draw = random.Random(seed)
    directory.mkdir(parents=True)
    recipe = {
        "data": {"shards": "s"},
        "optimizer": {
            "learning_rate": 3e-3, "warmup_tokens": 51_200, "schedule": "wsd",
            "decay_fraction": 0.2, "final_fraction": 0.0,
        },
        "train": {"global_batch_tokens": 512, "tokens": 512 * lines},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps({"format": 2, "recipe": recipe}))
    with open(directory / "metrics.jsonl", "w", encoding="utf-8") as file:
        for i in range(1, lines + 1):
            row = {
                "step": i, "tokens": 512 * i, "flops": 1e9 * i,
                "loss": 1.5 + 40 / (512 * i) ** 0.3 + draw.gauss(0, 0.02),
                "grad_norm": 0.7 + draw.random(), "lr": 3e-3, "tokens_per_second": 41_000.0,
                "seconds": 0.012 * i, "mfu": 0.62, "update_ratio": 1e-3, "update_ratio_max": 2e-3,
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Print a row for each number of runs the lines are spread over."""
    print(f"{'runs':>4}  {'lines':>7}  {'CPU seconds':>11}  {'kB':>5}")
    for runs in RUNS:
        with TemporaryDirectory() as folder:
            paths = [Path(folder) / f"run-{i}" for i in range(runs)]
            for i, path in enumerate(paths):
                write_run(path, LINES // runs, i)
            times = []
            for _ in range(3):
                began = time.process_time()
                page = build(collect(paths))
                times.append(time.process_time() - began)
            size = len(page.encode()) / 1000
            print(f"{runs:>4}  {LINES:>7,}  {min(times):>11.2f}  {size:>5.0f}")


if __name__ == "__main__":
    main()
