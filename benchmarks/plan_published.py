"""Planned speeds against published ones: what the planner's constants were fitted to, and the rest.

    python benchmarks/plan_published.py [--fit]

Reads `published_runs.json` beside it, where each figure has its source. Runs of the set `speed` set
the constants of `planning.timing` and `planning.gpus`, those of `spread` the interval together with
them, and `held out` neither. `--fit` prints what the sets say the constants should be.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from isoflop.models.config import DecoderConfig
from isoflop.planning import timing
from isoflop.planning.candidates import rank_layouts
from isoflop.planning.gpus import get_gpu
from isoflop.planning.layout import Layout

RUNS = Path(__file__).with_name("published_runs.json")


@dataclass(frozen=True)
class Compared:
    """A published run and what the planner makes of it."""

    run: dict[str, Any]
    foretold: float
    """Tokens per second and device."""
    devices: int

    @property
    def slower(self) -> float:
        """Published time over planned time."""
        return float(self.foretold / self.run["tokens_per_second_device"])

    @property
    def held(self) -> bool:
        """Whether the published time lies in the planned interval."""
        quick, slow = timing.spread(
            self.devices if self.run["whole"] else 1, get_gpu(self.run["gpu"])
        )
        return 1 / quick <= self.slower <= slow


def compare(run: dict[str, Any]) -> Compared:
    """Plan one published run; where its layout is not published, in the planner's own."""
    shape = run["model"]
    config = DecoderConfig(
        **shape, n_heads=shape["d_model"] // shape["head_dim"], max_seq_len=run["seq_len"]
    )
    gpu = get_gpu(run["gpu"])
    if "layout" in run:
        layout = Layout(**run["layout"])
        devices = layout.devices
        time = timing.step_time(config, layout, gpu, run["seq_len"], run["micro_steps"]).total
        sequences = run["micro_steps"] * layout.micro_batch * layout.data_ranks
        speed = sequences * run["seq_len"] / time / devices
    else:
        devices = run["devices"]
        choice = rank_layouts(config, gpu, devices, run["seq_len"], run["batch_sequences"])
        speed = choice.best.tokens_per_second / devices
    share = timing.sustained_share(devices, gpu) if run["whole"] else 1.0
    return Compared(run, speed * share, devices)


def table(compared: list[Compared]) -> str:
    """Markdown: each run, its published and planned speed, and the error of the planned time."""
    lines = [
        "| run | set | published, tokens/s/GPU | planned | planned time | in the interval |",
        "|---|---|---|---|---|---|",
    ]
    for one in compared:
        run = one.run
        held = "yes" if one.held else "**no**"
        error = 100 * (1 / one.slower - 1)
        lines.append(
            f"| {run['name']} | {run['set']} | {run['tokens_per_second_device']:,.0f} | "
            f"{one.foretold:,.0f} | {error:+.0f} % | {held} |"
        )
    return "\n".join(lines)


def summary(compared: list[Compared]) -> str:
    """Errors and coverage of the held-out runs, by kind."""
    lines = []
    rest = [one for one in compared if one.run["set"] == "held out"]
    kinds = {
        "A100, in steps": lambda r: r["gpu"].startswith("a100") and not r["whole"],
        "H100, in steps": lambda r: r["gpu"].startswith("h100") and not r["whole"],
        "whole runs": lambda r: r["whole"],
        "all": lambda r: True,
    }
    for name, belongs in kinds.items():
        chosen = [one for one in rest if belongs(one.run)]
        off = [100 * abs(1 / one.slower - 1) for one in chosen]
        held = sum(one.held for one in chosen)
        lines.append(
            f"held out, {name}: {len(chosen)} runs, median error {median(off):.0f} %, largest "
            f"{max(off):.0f} %, {held} in their interval"
        )
    return "\n".join(lines)


def suggestions(compared: list[Compared]) -> str:
    """What each constant would be multiplied by for the set `speed` to be met on average."""
    lines = []
    for name, belongs in {
        "step share, A100": lambda r: r["gpu"].startswith("a100") and not r["whole"],
        "step share, H100": lambda r: r["gpu"].startswith("h100") and not r["whole"],
        "A100 step share x SUSTAINED_CLUSTER": lambda r: r["whole"],
    }.items():
        off = [
            math.log(one.slower)
            for one in compared
            if one.run["set"] == "speed" and belongs(one.run)
        ]
        lines.append(f"{name}: x {math.exp(-mean(off)):.3f} ({len(off)} runs)")
    for name, belongs in {
        "A100 in steps": lambda r: r["gpu"].startswith("a100") and not r["whole"],
        "H100 in steps": lambda r: r["gpu"].startswith("h100") and not r["whole"],
        "whole runs": lambda r: r["whole"],
    }.items():
        ratios = sorted(
            one.slower for one in compared if one.run["set"] != "held out" and belongs(one.run)
        )
        lines.append(f"published over planned time, {name}: {ratios[0]:.2f} to {ratios[-1]:.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="what the constants should be")
    asked = parser.parse_args()
    compared = [compare(run) for run in json.loads(RUNS.read_text(encoding="utf-8"))]
    print(table(compared))
    print()
    print(suggestions(compared) if asked.fit else summary(compared))


if __name__ == "__main__":
    main()
