"""Two rungs of a ladder side by side, one thread each, against one after the other on two threads.

    python benchmarks/rungs_side_by_side.py

Both ways take the same steps of the same training (`training_speed.py`'s own), in turns, each
trainer in a process of its own. Ratios above 1: side by side is sooner.
"""

from __future__ import annotations

import argparse
import statistics
import time

from training_speed import CASES, Case, Entered, enter

from isoflop.core.hardware import usable_cores

SMALLEST = Case("0.05M", 64, 1, 32, 512, 512)
"""A middle rung of the demo."""


def take(one: Entered, seed: int) -> None:
    one.line.send(seed)
    one.line.recv()


def in_turn(both: Entered, seed: int) -> float:
    """Seconds of two steps, one after the other."""
    began = time.perf_counter()
    take(both, seed)
    take(both, seed)
    return time.perf_counter() - began


def side_by_side(pair: tuple[Entered, Entered], seed: int) -> float:
    """Seconds until both have taken a step."""
    began = time.perf_counter()
    for one in pair:
        one.line.send(seed)
    for one in pair:
        one.line.recv()
    return time.perf_counter() - began


def trainer(case: Case, threads: int) -> Entered:
    entered = enter("isoflop", case, threads, shared=False)
    if entered is None:
        raise SystemExit("Isoflop itself could not be started")
    return entered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size")
    seconds = parser.parse_args().seconds
    print(f"{usable_cores()} cores\n")
    print("| size | tokens a step | in turn, ms | side by side, ms | ratio | middle half |")
    print("|---|---|---|---|---|---|")
    for case in (SMALLEST, *(c for c in CASES if c.size in ("0.2M", "1M"))):
        both, pair = trainer(case, 2), (trainer(case, 1), trainer(case, 1))
        times: list[tuple[float, float]] = []
        began = time.perf_counter()
        while len(times) < 7 or time.perf_counter() - began < seconds:
            seed = len(times)
            times.append((in_turn(both, seed), side_by_side(pair, seed)))
        times = times[2:]  # buffers are made and caches filled
        turn, side = (statistics.median(column) for column in zip(*times, strict=True))
        low, ratio, high = statistics.quantiles([a / b for a, b in times], n=4)
        print(
            f"| {case.size} | {case.batch_tokens:,} | {turn * 1e3:.1f} | {side * 1e3:.1f} "
            f"| {ratio:.2f} | {low:.2f} to {high:.2f} |",
            flush=True,
        )
        for one in (both, *pair):
            one.line.send(None)


if __name__ == "__main__":
    main()
