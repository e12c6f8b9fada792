"""Whether the best learning rate of a narrow model is that of a wide one, with scaling and without.

Usage: python benchmarks/lr_transfer.py SHARDS OUT.json [--optimizer adamw] [--tokens 800000]
    [--figure docs/lr-transfer.svg] [--draw-only]

Trains two-layer models of four widths over a grid of learning rates, twice: with
`optimizer.base_width` set to the narrowest and without it. Prints the held-out losses, the best
rate of each width (the vertex of a parabola through the three points around the least loss) and how
far it drifts. Runs already in OUT.json are not run again; --draw-only draws them and runs nothing.
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


def figure(known: dict[str, float], optimizer: str, tokens: int) -> str:
    """Loss by rate and width, without scaling on the left and with it on the right."""
    wide, high, edge, top = 300, 240, 48, 3.15
    colours = ("#9db8d9", "#5f8fc4", "#2f649f", "#123a6b")

    def place(panel: int, rate: float, loss: float) -> tuple[float, float]:
        x = edge + panel * (wide + 30) + (math.log2(rate) + 9) / 6 * (wide - 20) + 10
        return x, edge + (4.5 - loss) / (4.5 - top) * high

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * wide + 130} {high + 110}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for panel, scaled in enumerate((False, True)):
        left = edge + panel * (wide + 30)
        title = f"{'with' if scaled else 'without'} optimizer.base_width"
        parts.append(f'<text x="{left + 8}" y="30" font-weight="bold">{title}</text>')
        for loss in (3.25, 3.5, 3.75, 4.0, 4.25, 4.5):
            y = place(0, 1, loss)[1]
            parts.append(f'<path d="M{left} {y:.1f}h{wide}" stroke="#ddd"/>')
            if not panel:
                parts.append(f'<text x="8" y="{y + 4:.1f}">{loss:.2f}</text>')
        for rate in RATES:
            x = place(panel, rate, 4)[0]
            parts.append(
                f'<text x="{x:.1f}" y="{edge + high + 20}" text-anchor="middle">'
                f"2^{math.log2(rate):.0f}</text>"
            )
        for width, colour in zip(WIDTHS, colours, strict=True):
            found = [
                (known[key], rate)
                for rate in RATES
                if (key := f"{optimizer} {tokens} {width} {scaled or width == WIDTHS[0]} {rate:g}")
                in known
                and known[key] < 4.5
            ]
            points = [place(panel, rate, loss) for loss, rate in found]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
            least, at = min(found)
            x, y = place(panel, at, least)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
            if panel:
                x, y = max(points)
                parts.append(
                    f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}">{width}</text>'
                )
    label = "peak learning rate; curves by width, held-out loss, the best of each marked"
    parts.append(f'<text x="{edge}" y="{edge + high + 44}">{label}</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--tokens", type=int, default=800_000)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--draw-only", action="store_true")
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.draw_only and options.figure:
        write_atomic(options.figure, figure(known, options.optimizer, options.tokens))
        return
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
    if options.figure:
        write_atomic(options.figure, figure(known, options.optimizer, options.tokens))


if __name__ == "__main__":
    main()
