"""Seconds that a run is held by a checkpoint: written before it goes on, and beside its steps.

`python benchmarks/checkpoint_seconds.py`: decoders with AdamW in float32 on one thread, the least
of five of each in turns. A step beside a write shares the machine with it; it is shown too.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.checkpoint import LoopState, save_checkpoint
from isoflop.training.checkpoint_writer import CheckpointWriter
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.ranks import Ranks

SEQ_LEN, ROWS, VOCAB, ROUNDS = 128, 4, 8192, 5
SHAPES = {
    "4 layers of 256": DecoderConfig(VOCAB, 256, 4, 4, 2, 64, 704, SEQ_LEN),
    "8 layers of 512": DecoderConfig(VOCAB, 512, 8, 8, 4, 64, 1408, SEQ_LEN),
}


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(config: DecoderConfig, directory: Path) -> dict[str, float]:
    """The least seconds of each."""
    model = Decoder(config)
    initialise(model, 0)
    optimizer = build_optimizer(model, OptimizerConfig())
    ids = torch.randint(VOCAB, (ROWS, SEQ_LEN))
    batch = TokenBatch(ids, ids, torch.zeros_like(ids), ids.numel())

    def step() -> None:
        next_token_loss(model, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    step()
    writer = CheckpointWriter(directory, Ranks())
    least = dict.fromkeys(("step", "before", "begin", "beside", "rest"), math.inf)
    for number in range(ROUNDS):
        plain, state = LoopState(step=2 * number), LoopState(step=2 * number + 1)
        found = {
            "step": seconds(step),
            "before": seconds(lambda: save_checkpoint(directory, model, optimizer, plain)),  # noqa: B023
            "begin": seconds(
                lambda: writer.begin(model, optimizer, state, None, lambda: None)  # noqa: B023
            ),
            "beside": seconds(step),
            "rest": seconds(writer.wait),
        }
        least = {name: min(least[name], value) for name, value in found.items()}
    writer.close()
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where checkpoints are written")
    place = parser.parse_args().directory
    torch.set_num_threads(1)
    print(
        "| model | parameters | a step | held by a checkpoint written first | by its copy alone "
        "| a step beside the write |\n|---|---|---|---|---|---|"
    )
    for name, config in SHAPES.items():
        with TemporaryDirectory(dir=place) as directory:
            found = measure(config, Path(directory))
        count = sum(p.numel() for p in Decoder(config).parameters()) / 1e6
        row = (found[key] for key in ("step", "before", "begin", "beside"))
        print(f"| {name} | {count:.1f} M | " + " | ".join(f"{s:.3f} s" for s in row) + " |")


if __name__ == "__main__":
    main()
