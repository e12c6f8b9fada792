"""Seconds of a training step as a probe foretells them, against the steps that follow.

`python benchmarks/step_seconds.py SHARDS`: three shapes on one thread, in seconds of this process's
CPU time, so that other work on the machine does not count; probe and steps in turn, the least of
three of each.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.recipe import ModelConfig
from isoflop.training import probe as probing
from isoflop.training.batches import open_data
from isoflop.training.optimizers import build_optimizer
from isoflop.training.pretrain import next_token_task
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe
from isoflop.training.step import apply_gradient, compute_gradient

SHAPES = {"2 layers of 64": (64, 2), "3 layers of 128": (128, 3), "4 layers of 256": (256, 4)}
STEPS, ROUNDS = 6, 3


def main(shards: Path) -> None:
    torch.set_num_threads(1)
    probing.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    print("| shape | foretold s | taken s | error |\n|---|---|---|---|")
    for name, (width, depth) in SHAPES.items():
        recipe = TrainRecipe(
            DataConfig(shards),
            ModelConfig(d_model=width, n_layers=depth),
            train=TrainConfig(
                tokens=1_000_000, seq_len=256, global_batch_tokens=2048, micro_batch_tokens=2048,
                threads=1, device="cpu", tensorboard=False, eval_tokens=4096,
            ),
        )  # fmt: skip
        data = open_data(recipe)
        model = Decoder(recipe.model.decoder_config(data.vocab_size, recipe.train.seq_len))
        initialise(model, recipe.train.seed)
        optimizer = build_optimizer(model, recipe.optimizer)
        task = next_token_task(recipe, data)
        foretold = taken = math.inf
        for start in range(0, STEPS * ROUNDS, STEPS):
            foretold = min(foretold, probing.probe(recipe).seconds_per_step)
            began = time.process_time()
            for step in range(start, start + STEPS):
                compute_gradient(model, task, step, recipe.optimizer.clip_norm)
                apply_gradient(optimizer, recipe.optimizer.learning_rate)
            taken = min(taken, (time.process_time() - began) / STEPS)
        row = f"{foretold:.4f} | {taken:.4f} | {foretold / taken - 1:+.1%}"
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
