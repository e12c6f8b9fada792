"""The one training loop: batches in, weights out, killed and resumed without a trace.

What is trained is a `Task`: a batch source, a loss and an evaluator. The loop knows steps,
accumulation, clipping, schedules, logs and checkpoints, and nothing of tokens' meaning. Not for
the tasks themselves (`pretrain.py`).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from isoflop.core.console import Progress
from isoflop.core.errors import RunError
from isoflop.training.checkpoint import (
    LoopState,
    latest_checkpoint,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from isoflop.training.metrics import EVENTS, RunLog, cut_logs


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
    """Steps done → what the logs say of where the data stands: shares and epochs of sources."""


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs."""

    steps: int
    tokens_per_step: int
    flops_per_token: float
    peak_flops: float | None
    """Measured FLOP/s of this machine, for the MFU; None writes none."""
    clip_norm: float
    log_every: int
    evaluate_at: frozenset[int]
    """Steps after which the model is evaluated."""
    checkpoint_every: int
    keep_checkpoints_at: frozenset[int]
    """Steps whose checkpoint stays."""
    tensorboard: bool


def run(
    model: ModelT,
    optimizer: torch.optim.Optimizer,
    learning_rate: Callable[[int], float],
    task: Task[ModelT, BatchT],
    config: LoopConfig,
    directory: Path,
    progress: Progress,
    branch_from: Path | None = None,
) -> LoopState:
    """Train until `config.steps`, continuing from the newest checkpoint in `directory`.

    Args:
        learning_rate: Tokens seen before a step → its learning rate.
        branch_from: A checkpoint to begin from when `directory` has none of its own.

    Raises:
        NotFinite: The loss or gradient norm is not finite; `events.jsonl` says so too.
        Interrupted: SIGTERM or SIGINT came; a checkpoint was written first.
    """
    state = _restore(model, optimizer, directory, branch_from)
    cut_logs(directory, state.log_bytes)
    log = RunLog(directory, tensorboard=config.tensorboard, start_step=state.step)
    log.write(
        EVENTS,
        {"event": "resumed" if state.step else "started", "step": state.step, "time": time.time()},
    )
    session_start, seconds_before = time.perf_counter(), state.seconds
    store = directory / "checkpoints"

    def checkpoint() -> None:
        save_checkpoint(store, model, optimizer, replace(state, log_bytes=log.sync()))
        kept = {state.step} | config.keep_checkpoints_at
        remove_checkpoints(store, keep=kept)

    logged_at, logged_step = session_start, state.step
    try:
        with _stop_signals() as stop:
            while state.step < config.steps:
                lr = learning_rate(state.tokens)
                try:
                    loss_sum, count, grad_norm = train_step(
                        model, optimizer, lr, task, state.step, config.clip_norm
                    )
                except NotFinite as error:
                    event = {"event": "not finite", "step": state.step + 1, "what": error.what}
                    log.write(EVENTS, {**event, "time": time.time()})
                    raise
                seconds = seconds_before + time.perf_counter() - session_start
                state = replace(
                    state,
                    step=state.step + 1,
                    tokens=state.tokens + config.tokens_per_step,
                    flops=state.flops + config.tokens_per_step * config.flops_per_token,
                    seconds=seconds,
                    loss_sum=state.loss_sum + loss_sum,
                    loss_count=state.loss_count + count,
                )
                if state.step % config.log_every == 0 or state.step == config.steps:
                    now = time.perf_counter()
                    speed = (state.step - logged_step) * config.tokens_per_step / (now - logged_at)
                    row = _metrics(state, lr, grad_norm, speed, config)
                    log.write("metrics.jsonl", {**row, **task.position(state.step)})
                    logged_at, logged_step = now, state.step
                    progress.advance(state.tokens, f"loss {state.loss_sum / state.loss_count:.3f}")
                    state = replace(state, loss_sum=0.0, loss_count=0)
                if state.step in config.evaluate_at:
                    _evaluate(model, task, state, log)
                    logged_at, logged_step = time.perf_counter(), state.step
                due = state.step % config.checkpoint_every == 0
                if due or state.step in config.keep_checkpoints_at or state.step == config.steps:
                    checkpoint()
                if stop.signal_number is not None:
                    checkpoint()
                    log.write(
                        EVENTS,
                        {
                            "event": "interrupted",
                            "step": state.step,
                            "signal": stop.signal_number,
                            "time": time.time(),
                        },
                    )
                    raise Interrupted(stop.signal_number)
    finally:
        log.close()
    return state


class NotFinite(RunError):
    """The loss or its gradient overflowed; the run stops before they reach the weights."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved itself; the same command continues it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; checkpoint written")
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        # Exceptions pickle by their message alone; a worker sends this one to its parent.
        return (Interrupted, (self.signal_number,))


def train_step(
    model: ModelT,
    optimizer: torch.optim.Optimizer,
    lr: float,
    task: Task[ModelT, BatchT],
    step: int,
    clip_norm: float,
) -> tuple[float, int, float]:
    """One optimizer step; returns (summed loss, valid positions, gradient norm before clipping).

    Raises:
        NotFinite: The loss or the gradient norm is not finite; the weights are as before.
    """
    batches = task.batches(step)
    # The divisor is the count over the whole global batch, known before the first backward, so
    # that neither micro-batches nor ranks weigh differently by how many labels they hold.
    count = sum(batch.n_valid for batch in batches)
    loss_sum = 0.0
    for batch in batches:
        loss = task.loss(model, batch)
        (loss / count).backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.item()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm).item()
    if not math.isfinite(loss_sum) or not math.isfinite(norm):
        raise NotFinite(
            f"the loss ({loss_sum / count:.4g}) or the gradient norm ({norm:.4g}) is not finite",
            where=f"step {step + 1}",
            fix="Lower optimizer.learning_rate or lengthen the warm-up; the checkpoint before "
            "this step is untouched",
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()
    return loss_sum, count, norm


def _metrics(
    state: LoopState, lr: float, grad_norm: float, speed: float, config: LoopConfig
) -> dict[str, float]:
    row = {
        "step": state.step,
        "tokens": state.tokens,
        "flops": state.flops,
        "loss": state.loss_sum / state.loss_count,
        "grad_norm": grad_norm,
        "lr": lr,
        "tokens_per_second": speed,
        "seconds": state.seconds,
    }
    if config.peak_flops is not None:
        row["mfu"] = speed * config.flops_per_token / config.peak_flops
    return row


def _evaluate(model: ModelT, task: Task[ModelT, BatchT], state: LoopState, log: RunLog) -> None:
    position = {"step": state.step, "tokens": state.tokens, "flops": state.flops}
    model.eval()
    with torch.no_grad():
        scores = {**task.evaluate(model), **task.position(state.step)}
        log.write("evals.jsonl", {**position, **scores, "seconds": state.seconds})
        for sample in task.samples(model):
            log.write("samples.jsonl", {**position, **sample})
    model.train()


def _restore(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    directory: Path,
    branch_from: Path | None,
) -> LoopState:
    own = latest_checkpoint(directory / "checkpoints")
    if own is not None:
        return load_checkpoint(own, model, optimizer)
    if branch_from is not None:
        state = load_checkpoint(branch_from, model, optimizer)
        return replace(state, log_bytes={})
    return LoopState(
        step=0, tokens=0, flops=0.0, seconds=0.0, loss_sum=0.0, loss_count=0, log_bytes={}
    )


@dataclass
class _Stop:
    signal_number: int | None = None


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn SIGTERM and SIGINT into a request that the loop honours between two steps."""
    stop = _Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number

    try:
        old = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
