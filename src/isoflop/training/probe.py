"""How fast and how large a run will be, from a few of its real steps; not the run itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from isoflop.core.process import keep_freed_buffers
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.batches import open_data
from isoflop.training.checkpoint import LoopState
from isoflop.training.checkpoint_writer import CheckpointWriter
from isoflop.training.execution import arrange, choose_kernels
from isoflop.training.metrics import RunLog
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.ranks import Ranks
from isoflop.training.precision import choose_precision
from isoflop.training.pretrain import next_token_task
from isoflop.training.recipe import TrainRecipe
from isoflop.training.step import apply_gradient, compute_gradient, one_pass

EVAL_TOKENS = 16_384
"""Held-out tokens of the timed evaluation; the time is scaled to the recipe's."""


@dataclass(frozen=True)
class Probe:
    """What a few steps and one evaluation cost."""

    seconds_per_step: float
    evaluation_seconds: float
    """One held-out evaluation, samples included."""
    peak_memory_bytes: int
    """Most memory held: weights, gradients, moments and activations of real steps."""


def probe(recipe: TrainRecipe, seconds: float = 2.0, warmup_steps: int = 3) -> Probe:
    """Train the recipe's model for about `seconds` and throw it away.

    Best run in a fresh process: the peak is the process's.
    """
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    keep_freed_buffers()
    eval_tokens = min(EVAL_TOKENS, recipe.train.eval_tokens)
    short = replace(recipe, train=replace(recipe.train, eval_tokens=eval_tokens))
    data = open_data(short)
    model = Decoder(recipe.model.decoder_config(data.vocab_size, recipe.train.seq_len))
    initialise(model, recipe.train.seed)
    precision = choose_precision(recipe.train.dtype, recipe.train.device)
    model.to(precision.device)
    task = next_token_task(short, data)
    choose_kernels(recipe.train, precision)
    arrange(model, recipe.train, precision, one_pass(model, task, precision))
    optimizer = build_optimizer(model, recipe.optimizer)
    times: list[float] = []

    def step() -> None:
        # A learning rate of zero: the weights, and with them the cost of a sample, stay typical.
        compute_gradient(model, task, len(times), recipe.optimizer.clip_norm, precision)
        apply_gradient(optimizer, 0.0)

    while len(times) < warmup_steps + 5 or sum(times) < seconds:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    with torch.no_grad(), precision.autocast():
        began = time.perf_counter()
        task.evaluate(model)
        evaluated = time.perf_counter()
        task.samples(model)
        sampled = time.perf_counter()
    _write_beside(step, recipe, model, optimizer)
    scale = recipe.train.eval_tokens / eval_tokens
    return Probe(
        # The mean, since the run will meet the slow steps too; a median would be too hopeful.
        seconds_per_step=statistics.fmean(times[warmup_steps:]),
        evaluation_seconds=(evaluated - began) * scale + sampled - evaluated,
        peak_memory_bytes=precision.peak_memory_bytes(),
    )


def _write_beside(
    step: Callable[[], None], recipe: TrainRecipe, model: Decoder, optimizer: torch.optim.Optimizer
) -> None:
    """Open the logs, and take a step while a checkpoint is written, as a run does: both hold
    memory of their own."""
    with TemporaryDirectory() as directory:
        RunLog(Path(directory), tensorboard=recipe.train.tensorboard, start_step=0).close()
        writer = CheckpointWriter(Path(directory), Ranks())
        writer.begin(model, optimizer, LoopState(), None, lambda: None)
        step()
        writer.wait()
        writer.close()
