"""Does a student that learns from a teacher beat the same student alone, at equal tokens?

    python benchmarks/compression_distill.py DEMO OUT [--seeds 3]

DEMO is the folder of a finished `isoflop demo`, whose model is the teacher and whose shards are the
text. For every seed the same student of half the width is trained twice by `isoflop compress
--method distill`: with the teacher's distributions as half of its loss, and with the text alone
(student.teacher-weight 0). Weights at the start, text, order and rate are the same; what differs
is the loss. Prints bits per byte on held-out text and the difference over the seeds with a 90 %
interval by Student's t. What is in OUT already is not made again. Not for how to choose a teacher.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from scipy import stats

from isoflop.compression.compress import compress
from isoflop.compression.recipe import CompressConfig, StudentConfig
from isoflop.compression.result import Compressed
from isoflop.core.console import make_progress

LEVEL = 0.9


def row(name: str, found: Compressed) -> str:
    promise = found.promises[0]
    measured, held = found.measured, "held" if promise.held else "broken"
    low, high = (x + measured.bits_per_byte_full for x in (promise.low, promise.high))
    return (
        f"| {name} | {found.bytes:,} | {measured.bits_per_byte:.4f} | {low:.4f} to {high:.4f}, "
        f"{held} | {measured.kl:.3f} | {measured.flipped:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--hidden-weight", type=float, default=0.0)
    asked = parser.parse_args()
    base = StudentConfig(
        tokens=asked.tokens, temperature=asked.temperature, hidden_weight=asked.hidden_weight
    )
    print(
        "| student | bytes | bits per byte | promised | KL | flipped |\n|---|---|---|---|---|---|"
    )
    gains = []
    for seed in range(asked.seeds):
        by_loss = {}
        for name, weight in (("alone", 0.0), ("distilled", base.teacher_weight)):
            student = replace(base, seed=seed, teacher_weight=weight)
            config = CompressConfig("distill", tokens=65_536, student=student)
            model, shards, place = (
                asked.demo / "model", asked.demo / "shards", asked.out / f"{name}-{seed}",
            )  # fmt: skip
            by_loss[name] = found = compress(model, shards, place, config, make_progress(True))
            print(row(f"{name}, seed {seed}", found), flush=True)
        gain = {name: found.measured.bits_per_byte for name, found in by_loss.items()}
        gains.append(gain["alone"] - gain["distilled"])
    mean = statistics.mean(gains)
    said = f"\ndistilled is better by {mean:+.4f} bits per byte"
    if len(gains) > 1:
        error = statistics.stdev(gains) / len(gains) ** 0.5
        reach = float(stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1)) * error
        said += f", {LEVEL:.0%} interval {mean - reach:+.4f} to {mean + reach:+.4f}"
    print(
        said + f", over {len(gains)} seeds; the teacher has {found.measured.bits_per_byte_full:.4f}"
    )


if __name__ == "__main__":
    main()
