"""Whether the best learning rate of a narrow model is that of a wide one, with scaling and without.

Usage: python benchmarks/lr_transfer.py SHARDS OUT.json [--optimizer adamw] [--tokens 800000]

Trains two-layer models of four widths over a grid of learning rates, twice: with
`optimizer.base_width` set to the narrowest and without it. Prints the held-out losses, the best
rate of each width (the vertex of a parabola through the three points around the least loss) and how
far it drifts. Runs already in OUT.json are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from isoflop.core.artifact import write_atomic
from isoflop.core.errors import RunError
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.pretrain import train
from isoflop.training.recipe import DataConfig, ModelConfig, TrainConfig, TrainRecipe

WIDTHS = (32, 64, 128, 256)
RATES = tuple(2.0**-k for k in range(9, 2, -1))
BASE = TrainConfig(
    seq_len=128, global_batch_tokens=2048, micro_batch_tokens=2048, evaluations=1,
    eval_tokens=100_000, threads=1, tensorboard=False, checkpoint_every=10_000,
)  # fmt: skip


def loss_of(shards: Path, width: int, rate: float, scaled: bool, optimizer: str, n: int) -> float:
    """Held-out loss of one run; infinite where it diverged."""
    recipe = TrainRecipe(
        data=DataConfig(shards),
        model=ModelConfig(d_model=width, n_layers=2),
        optimizer=OptimizerConfig(
            name=optimizer,  # type: ignore[arg-type]
            learning_rate=rate,
            warmup_tokens=n // 10,
            base_width=WIDTHS[0] if scaled else None,
        ),
        train=replace(BASE, tokens=n),
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            return train(recipe, Path(folder) / "run").loss
        except RunError:
            return math.inf


def best_rate(losses: list[float]) -> float:
    """log2 of the best rate: the vertex of the parabola through the least loss's neighbourhood."""
    at = int(np.argmin(losses))
    logs = [math.log2(rate) for rate in RATES]
    if not 0 < at < len(losses) - 1 or not all(map(math.isfinite, losses[at - 1 : at + 2])):
        return logs[at]
    a, b, _ = np.polyfit(logs[at - 1 : at + 2], losses[at - 1 : at + 2], 2)
    return float(-b / (2 * a))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--tokens", type=int, default=800_000)
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    for width in WIDTHS:
        for scaled in (True, False):
            for rate in RATES:
                key = f"{options.optimizer} {options.tokens} {width} {scaled} {rate:g}"
                if width == WIDTHS[0] and not scaled:
                    known[key] = known[key.replace("False", "True")]  # the same run
                if key not in known:
                    known[key] = loss_of(
                        options.shards, width, rate, scaled, options.optimizer, options.tokens
                    )
                    write_atomic(options.out, json.dumps(known, indent=1))
                    print(key, round(known[key], 4), flush=True)
    for scaled in (True, False):
        print(f"\n{'with' if scaled else 'without'} scaling ({options.optimizer})\n")
        print("| width | " + " | ".join(f"2^{math.log2(r):.0f}" for r in RATES) + " | best |")
        print("|---" * (len(RATES) + 2) + "|")
        for width in WIDTHS:
            losses = [
                known[f"{options.optimizer} {options.tokens} {width} {scaled} {rate:g}"]
                for rate in RATES
            ]
            cells = " | ".join(f"{loss:.4f}" for loss in losses)
            print(f"| {width} | {cells} | 2^{best_rate(losses):.2f} |")


if __name__ == "__main__":
    main()
