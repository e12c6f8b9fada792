"""Seed noise of a middle rung of the demo's ladder, and what injected faults add to it.

    python benchmarks/training_noise.py SHARDS OUT.json

Trains the rung (width 64, one layer, 0.5 M tokens in batches of 512) with five seeds, then seed 0
again with faults injected, a checkpoint every 100 steps and the guard as recipes have it: losses
that are not finite, batches of random tokens whose gradient is 64 times as large, a learning rate
30 times too high. Prints each final held-out loss, its distance from seed 0's in standard
deviations of the seeds, and what `events.jsonl` says. SHARDS are the demo's (`DEMO/shards`). Runs
already in OUT.json are not run again. Some 20 CPU-seconds a run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from isoflop.core.artifact import write_atomic
from isoflop.demo.pretraining import base_ladder
from isoflop.planning.recipe import RungConfig
from isoflop.training import pretrain
from isoflop.training.recipe import TrainRecipe
from isoflop.training.step import Work

TOKENS = 476_160
SEEDS = range(5)
STRUCK = range(500, 504)
"""Batches, or steps, that a fault hits; of 930."""
POISON, BURST = 64.0, 30.0


@dataclass(frozen=True)
class Fault:
    """How a run is harmed."""

    name: str
    work: Callable[[Work], Work] = lambda work: work
    rate: Callable[[int], float] = lambda step: 1.0
    """Step → by what its learning rate is multiplied."""


def recipe_of(shards: Path, seed: int) -> TrainRecipe:
    ladder = base_ladder(shards, seed)
    recipe = ladder.run_recipe(RungConfig(64, 1, (TOKENS,)), TOKENS)
    return replace(recipe, train=replace(recipe.train, threads=1, checkpoint_every=100))


def with_losses(change: Callable[[int, Any], tuple[Any, float]]) -> Callable[[Work], Work]:
    """A task whose batch of a step is changed, and its loss multiplied."""

    def changed(work: Work) -> Work:
        task, factor = work.task, 1.0

        def batches(step: int) -> Sequence[Any]:
            nonlocal factor
            found = []
            for batch in task.batches(step):
                poisoned, factor = change(step, batch)
                found.append(poisoned)
            return found

        def loss(model: Any, batch: Any) -> Tensor:
            return task.loss(model, batch) * factor

        return replace(work, task=replace(task, batches=batches, loss=loss))

    return changed


def not_finite(step: int, batch: Any) -> tuple[Any, float]:
    return batch, math.nan if step in STRUCK else 1.0


def poisoned(step: int, batch: Any) -> tuple[Any, float]:
    if step not in STRUCK:
        return batch, 1.0
    draw = torch.Generator().manual_seed(step)
    ids = torch.randint(1, 1000, batch.ids_BT.shape, generator=draw)
    return replace(batch, ids_BT=ids, labels_BT=ids.roll(-1, 1)), POISON


FAULTS = (
    Fault("the loss is NaN, 4 steps", with_losses(not_finite)),
    Fault("random tokens, gradient × 64, 4 steps", with_losses(poisoned)),
    Fault("learning rate × 30, 4 steps", rate=lambda step: BURST if step in STRUCK else 1.0),
)


def outcome(recipe: TrainRecipe, fault: Fault, folder: Path) -> dict[str, Any]:
    real_work, real_rate = pretrain.work_of, pretrain._learning_rate
    batch, struck = recipe.train.global_batch_tokens, set[int]()

    def rate(recipe: TrainRecipe) -> Callable[[int], float]:
        clean = real_rate(recipe)

        def at(tokens: int) -> float:
            step = tokens // batch
            factor = 1.0 if step in struck else fault.rate(step)
            if factor != 1:
                struck.add(step)  # the burst is an accident: it does not come again
            return clean(tokens) * factor

        return at

    with (
        mock.patch.object(pretrain, "work_of", lambda recipe: fault.work(real_work(recipe))),
        mock.patch.object(pretrain, "_learning_rate", rate),
    ):
        result = pretrain.train(recipe, folder / "run")
    rows = map(json.loads, (folder / "run" / "events.jsonl").read_text().splitlines())
    events = [f"{row['event']} {row['step']}" for row in rows if row["event"] != "started"]
    return {"loss": result.loss, "events": events}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    runs = [(f"seed {seed}", seed, Fault("none")) for seed in SEEDS]
    runs += [(fault.name, 0, fault) for fault in FAULTS]
    for name, seed, fault in runs:
        if name not in known:
            with tempfile.TemporaryDirectory() as folder:
                recipe = recipe_of(options.shards, seed)
                known[name] = outcome(recipe, fault, Path(folder))
            write_atomic(options.out, json.dumps(known, indent=1))
    clean = [known[name]["loss"] for name, _, fault in runs if fault.name == "none"]
    spread = statistics.stdev(clean)
    print("| run | held-out loss | from seed 0, in standard deviations of seeds | events |")
    print("|---|---|---|---|")
    for name, _, _ in runs:
        found = known[name]
        away = (found["loss"] - clean[0]) / spread
        print(f"| {name} | {found['loss']:.4f} | {away:+.2f} | {', '.join(found['events'])} |")
    print(f"\nstandard deviation of the seeds: {spread / statistics.fmean(clean):.2%}")


if __name__ == "__main__":
    main()
