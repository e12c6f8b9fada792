"""One optimizer step: what is trained, the gradient of its batch, and its use.

Not for many steps (`loop.py`), nor for what a task's batches and losses are (`pretrain.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from isoflop.models.config import AnyConfig
from isoflop.training.optimizers import set_learning_rate
from isoflop.training.parallel.gradients import (
    begin_pass,
    clip_gradient,
    global_square,
    reduces_every_pass,
    scale_gradient,
)
from isoflop.training.parallel.ranks import Ranks
from isoflop.training.precision import Precision


class Batch(Protocol):
    """What the loop must know of a micro-batch."""

    @property
    def n_valid(self) -> int:
        """Positions that carry loss."""


ModelT = TypeVar("ModelT", bound=nn.Module)
BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True)
class Task(Generic[ModelT, BatchT]):
    """What is trained: where batches come from, what they cost, how the model is judged."""

    batches: Callable[[int], Sequence[BatchT]]
    """Step (from 0) → the micro-batches of its global batch; a pure function."""
    loss: Callable[[ModelT, BatchT], Tensor]
    """Summed loss of a micro-batch over its valid positions, in nats."""
    evaluate: Callable[[ModelT], Mapping[str, float]]
    """Held-out figures of the model."""
    samples: Callable[[ModelT], Sequence[Mapping[str, Any]]]
    """Texts it writes, for people to read."""
    position: Callable[[int], Mapping[str, float]] = lambda steps: {}
    """Batches taken → what the logs say of where the data stands: shares and epochs of sources."""
    describe: Callable[[int], Mapping[str, Any]] = lambda step: {}
    """Step → where its batch comes from, for the event that leaves it out."""
    passes: Callable[[Sequence[BatchT], Sequence[bool], float], float] | None = None
    """Where the ranks of a pipeline take all micro-batches of a step together: this rank's, whether
    each counts, and a factor of the gradients → the summed loss. `loss` is not called then."""


@dataclass(frozen=True)
class Work:
    """What a recipe comes to once its data are open: a shape of model and what it is trained on."""

    config: AnyConfig
    task: Task[Any, Any]
    tokenizer_directory: Path
    flops_per_token: float
    """Of training, for each of the tokens that the recipe counts."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gradient:
    """What the parameters' `.grad` now holds."""

    loss_sum: float
    """Summed loss of the global batch, nats."""
    count: int
    """Its valid positions."""
    norm: float
    """Global gradient norm before clipping."""
    first_count: int
    """Valid positions of the first micro-batch, or of those that the ranks take first."""
    first_square: float | None
    """Squared norm of the mean gradient over these alone; None if they are the whole batch, or the
    ranks add up their gradients once a step. With `norm`, it tells the noise of the gradient."""
    data_seconds: float = field(compare=False)
    """What reading the batch took."""


def compute_gradient(
    model: ModelT,
    task: Task[ModelT, BatchT],
    step: int,
    clip_norm: float,
    precision: Precision | None = None,
    loss_scale: float = 1.0,
    ranks: Ranks | None = None,
) -> Gradient:
    """Forward and backward over the batch of `step`, clipped, ready to be applied or left out.

    Args:
        precision: Where the model lies and how it computes; float32 on the CPU when None.
        loss_scale: By what the loss is larger in the backward pass; the gradient is not.
        ranks: The processes that share the batch, each with its part; this one alone when None.
    """
    precision, ranks = precision or Precision(), ranks or Ranks()
    began = time.perf_counter()
    batches = task.batches(step)
    data_seconds = time.perf_counter() - began
    # The divisor is the count over the whole global batch, known before the first backward, so
    # that neither micro-batches nor ranks weigh differently by how many labels they hold.
    count = sum(batch.n_valid for batch in batches)
    first = ranks.first_of_all(batches)
    loss_sum, first_square = 0.0, None
    shares = ranks.shares(batches)
    if task.passes is not None:
        moved = [precision.moved(batch) for batch, _ in shares]
        with precision.autocast():
            loss_sum = task.passes(moved, [counts for _, counts in shares], loss_scale / count)
        shares = []
    for number, (batch, counts) in enumerate(shares):
        begin_pass(model, ranks, last=number + 1 == len(shares))
        with precision.autocast():
            loss = task.loss(model, precision.moved(batch))
        if not counts:
            loss = loss * 0.0
        # Divided first: a summed loss times the scale may leave the format's range.
        (loss / count * loss_scale).backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.item()
        if number == 0 and 0 < first < count and reduces_every_pass(ranks):
            first_square = global_square(model, ranks) * (count / first / loss_scale) ** 2
    if loss_scale != 1:
        scale_gradient(model, 1 / loss_scale)
    norm = clip_gradient(model, clip_norm, ranks)
    loss_sum = ranks.summed([loss_sum])[0]
    return Gradient(loss_sum, count, norm, first, first_square, data_seconds)


def one_pass(model: ModelT, task: Task[ModelT, BatchT], precision: Precision) -> Callable[[], None]:
    """A function that takes the first micro-batch forward and backward, and leaves nothing."""

    def once() -> None:
        with precision.autocast():
            loss = task.loss(model, precision.moved(task.batches(0)[0]))
        loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    return once


def apply_gradient(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One optimizer step at this learning rate; the gradient is gone afterwards."""
    set_learning_rate(optimizer, lr)
    optimizer.step()
    optimizer.zero_grad()


def evaluate(
    model: ModelT, task: Task[ModelT, BatchT], precision: Precision
) -> tuple[dict[str, float], Sequence[Mapping[str, Any]]]:
    """Held-out figures of the model and the texts it writes; it is in training mode afterwards."""
    model.eval()
    with torch.no_grad(), precision.autocast():
        found = dict(task.evaluate(model)), task.samples(model)
    model.train()
    return found
