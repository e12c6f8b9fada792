"""The one training loop: batches in, weights out, killed and resumed without a trace.

What is trained is a `Task` (`step.py`): a batch source, a loss and an evaluator. The loop knows
schedules, guards, logs and checkpoints, and nothing of tokens' meaning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

import torch

from isoflop.core.console import Progress
from isoflop.training.average import WeightAverage
from isoflop.training.checkpoint import (
    LoopState,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    remove_checkpoints,
)
from isoflop.training.checkpoint_writer import CheckpointWriter
from isoflop.training.forecast import Forecaster
from isoflop.training.guard import Fault, Guard
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.health import NoiseSums, UpdateSizes, signs
from isoflop.training.metrics import EVENTS, cut_logs, log_checksums, open_log
from isoflop.training.parallel.apply import whole_model
from isoflop.training.parallel.ranks import Ranks
from isoflop.training.precision import Precision
from isoflop.training.signals import stop_signals
from isoflop.training.step import (
    BatchT,
    Gradient,
    ModelT,
    Task,
    apply_gradient,
    compute_gradient,
    evaluate,
)
from isoflop.training.stops import Diverged, EarlyStop, Interrupted, not_finite

FAILED = 1 << 16
"""What a rank tells the others whose checkpoint could not be written; beyond every signal."""


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs."""

    steps: int
    batch_tokens: Callable[[int], int]
    """Step (from 0) → tokens of its global batch."""
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
    guard: GuardConfig = field(default_factory=GuardConfig)
    """When a step is left out and when the run goes back."""
    average_decay: float | None = None
    """Decay per step of the mean of the weights that is evaluated and exported; None for none."""
    forecaster: Forecaster | None = None
    """Says where the run will end; None if nobody asks."""
    precision: Precision = field(default_factory=Precision)
    """Where the model lies, and in which format products are taken."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the event of the start says."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that train the model together."""


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

    The model ends with the weights to be exported: their mean, if one is kept.

    Args:
        learning_rate: Tokens seen before a step → its learning rate.
        branch_from: A checkpoint to begin from when `directory` has none of its own.

    Raises:
        NotFinite: The loss or gradient norm is not finite and the recipe says to stop.
        EarlyStop: The forecast said that going on is not worth it.
        Diverged: Steps were left out and checkpoints taken up again, to no avail.
        Interrupted: SIGTERM or SIGINT came; a checkpoint was written first.
        OSError: A checkpoint could not be written; at most one step is taken after it is known.
    """
    loop = _Loop(model, optimizer, task, config, directory, progress, branch_from)
    # A signal is a request until the last word is written down.
    with stop_signals() as stop, closing(loop.log), closing(loop.writer):
        while loop.state.step < config.steps:
            loop.step(learning_rate(loop.state.tokens))
            own = FAILED if loop.writer.failed else stop.signal_number or 0
            if number := config.ranks.largest(own):
                if number != FAILED:
                    loop.checkpoint()
                loop.writer.wait()
                loop.event("interrupted", signal=number)
                raise Interrupted(number)
        loop.finish()
    return loop.state


class _Loop(Generic[ModelT, BatchT]):
    """One session of a run: its state, its logs, and what is due after each step."""

    def __init__(
        self,
        model: ModelT,
        optimizer: torch.optim.Optimizer,
        task: Task[ModelT, BatchT],
        config: LoopConfig,
        directory: Path,
        progress: Progress,
        branch_from: Path | None,
    ) -> None:
        self._model, self._optimizer, self._task = model, optimizer, task
        self._config, self._directory, self._progress = config, directory, progress
        self._store = directory / "checkpoints"
        self._band = "" if config.forecaster is None else config.forecaster.band
        decay = config.average_decay
        self._average = None if decay is None else WeightAverage(model, decay)
        ranks = config.ranks
        own = ranks.from_main(lambda: latest_checkpoint(self._store))
        if own is not None or branch_from is not None:
            state = self._load(own or branch_from)  # type: ignore[arg-type]
            self.state = state if own is not None else replace(state, log_bytes={}, log_crc32={})
        else:
            self.state = LoopState()
        self._guard = Guard(config.guard, self.state.guard)
        if ranks.is_main:
            cut_logs(directory, self.state.log_bytes, self.state.log_crc32)
        self.log = open_log(
            directory, ranks.rank, tensorboard=config.tensorboard, start_step=self.state.step
        )
        self.writer = CheckpointWriter(self._store, ranks)
        precision = config.precision
        self.event(
            "resumed" if self.state.step else "started",
            device=precision.device.type,
            dtype=precision.dtype_name,
            why=precision.reason,
            **config.facts,
        )
        self._began, self._seconds_before = time.perf_counter(), self.state.seconds
        self._logged_at, self._logged_tokens = self._began, self.state.tokens
        self._updates: Mapping[str, float] = {}
        self._alone_seconds = 0.0

    def step(self, lr: float) -> None:
        """One optimizer step and whatever is due after it; or a return to a checkpoint."""
        state, config = self.state, self._config
        number = state.step + state.data_offset
        precision, scale = config.precision, state.loss_scale
        factor = scale.value if precision.scales_loss else 1.0
        config.ranks.at(state.step + 1, "gradient")
        gradient = compute_gradient(
            self._model, self._task, number, config.clip_norm, precision, factor, config.ranks
        )
        loss = gradient.loss_sum / gradient.count
        overflow = precision.scales_loss and scale.is_too_large(loss, gradient.norm)
        fault = None if overflow else self._guard.judge(loss, gradient.norm)
        logs = (state.step + 1) % config.log_every == 0 or state.step + 1 == config.steps
        if overflow:
            self._optimizer.zero_grad()
            state = replace(state, loss_scale=scale.halved())
            self.event("overflow", loss_scale=state.loss_scale.value)
        elif fault is None:
            sizes = UpdateSizes(self._model, config.ranks) if logs else None
            began = time.perf_counter()
            apply_gradient(self._optimizer, lr)
            self._alone_seconds += gradient.data_seconds + time.perf_counter() - began
            self._updates = {} if sizes is None else sizes.after(self._model)
            state = replace(
                state,
                loss_sum=state.loss_sum + gradient.loss_sum,
                loss_count=state.loss_count + gradient.count,
                noise=_with_noise(state.noise, gradient),
                loss_scale=scale.after_good_step() if precision.scales_loss else scale,
            )
        else:
            self._leave_out(fault, lr, number)
            if self._guard.must_go_back:
                self._go_back(fault, lr)
                return
        tokens = config.batch_tokens(number)
        self.state = state = replace(
            state,
            step=state.step + 1,
            tokens=state.tokens + tokens,
            flops=state.flops + tokens * config.flops_per_token,
            seconds=self._seconds_before + time.perf_counter() - self._began,
            guard=self._guard.state,
        )
        if self._average is not None:
            self._average.update(state.step)
        if state.loss_count and logs:
            self._write_metrics(lr, gradient.norm)
        if config.forecaster is not None and state.step in config.forecaster.moments:
            self._forecast(config.forecaster)
        if state.step in config.evaluate_at:
            with self._averaged():
                self._evaluate(state)
            self._logged_at, self._logged_tokens = time.perf_counter(), state.tokens
        due = state.step % config.checkpoint_every == 0
        if due or state.step in config.keep_checkpoints_at or state.step == config.steps:
            self.checkpoint()

    def _evaluate(self, state: LoopState) -> None:
        self._config.ranks.at(state.step, "evaluation")
        model = whole_model(self._model, self._config.ranks)
        if model is None:  # the main rank does it for all
            return
        position = {"step": state.step, "tokens": state.tokens, "flops": state.flops}
        scores, samples = evaluate(model, self._task, self._config.precision)
        scores |= self._task.position(state.step)
        self.log.write("evals.jsonl", {**position, **scores, "seconds": state.seconds})
        for sample in samples:
            self.log.write("samples.jsonl", {**position, **sample})
        for sign in signs(scores, self._config.guard.attention_logit_bound):
            self.event(sign.event, what=sign.what, value=sign.value)

    def checkpoint(self) -> None:
        """Begin to write one."""
        lengths = self.log.sync()
        sums = log_checksums(self._directory, lengths)
        state = replace(self.state, log_bytes=lengths, log_crc32=sums)
        self._config.ranks.at(state.step, "checkpoint")
        then = partial(self._remove_old, state.step)
        self.writer.begin(self._model, self._optimizer, state, self._average, then)

    def _remove_old(self, newest: int) -> None:
        """Remove the checkpoints that are neither to be kept nor to be gone back to."""
        keep = {newest} | self._config.keep_checkpoints_at
        if newest < self._config.steps:
            # The newest may hold the weights that a bad step has spoilt unnoticed.
            keep |= {max(checkpoints(self._store).keys() - keep, default=newest)}
        remove_checkpoints(self._store, keep=keep)

    def finish(self) -> None:
        """Leave the model with the weights to be exported, and the last checkpoint on disk."""
        self.writer.wait()
        if self._average is not None:
            self._average.swap()

    def event(self, name: str, **facts: Any) -> None:
        """Write to `events.jsonl` what happened to the run."""
        self.log.write(
            EVENTS, {"event": name, "step": self.state.step, **facts, "time": time.time()}
        )

    def _leave_out(self, fault: Fault, lr: float, number: int) -> None:
        self._optimizer.zero_grad()
        error = not_finite(fault, self.state.step) if fault.reason == "not finite" else None
        self.log.write(
            EVENTS,
            {
                "event": fault.reason,
                "step": self.state.step + 1,
                "what": fault.what,
                "learning_rate": lr,
                "batch": number,
                **self._task.describe(number),
                "time": time.time(),
            },
        )
        if error is not None and self._config.guard.non_finite == "stop":
            raise error

    def _go_back(self, fault: Fault, lr: float) -> None:
        """Take up a checkpoint again and pass over the batches seen since.

        Raises:
            Diverged: There is none, or that was tried often enough.
        """
        ranks, before = self._config.ranks, self.state
        self.writer.wait()
        found = ranks.from_main(lambda: checkpoints(self._store))
        if not found or not self._guard.may_go_back:
            tried = self._guard.state.rollbacks
            raise Diverged(
                f"{self._config.guard.max_skips + 1} steps in a row had to be left out; the last: "
                f"{fault.what}, at learning rate {lr:.3g}"
                + (f"; {tried} returns to a checkpoint did not help" if tried else "")
                + ("" if found else "; there is no checkpoint to go back to"),
                where=f"step {before.step + 1}",
                fix="Lower optimizer.learning_rate, lengthen the warm-up or clip lower "
                "(optimizer.clip_norm); events.jsonl names the documents of the batches",
            )
        steps = sorted(found, reverse=True)
        to = steps[min(self._guard.state.rollbacks, len(steps) - 1)]
        state = self._load(found[to])
        if ranks.is_main:
            remove_checkpoints(self._store, keep={step for step in found if step <= to})
        self._guard.went_back(state.guard)
        self.state = replace(
            state, data_offset=before.step + 1 + before.data_offset - to, guard=self._guard.state
        )
        self.log.sync()
        if ranks.is_main:
            cut_logs(self._directory, state.log_bytes, state.log_crc32)
        self._logged_at, self._logged_tokens = time.perf_counter(), state.tokens
        self.event("went back", from_step=before.step + 1, passed_over=before.step + 1 - to)

    def _forecast(self, forecaster: Forecaster) -> None:
        """Write down where the run will end.

        Raises:
            EarlyStop: Going on is not worth it; a checkpoint was written first.
        """
        outlook = self._config.ranks.from_main(lambda: forecaster(self._directory))
        if outlook is None:
            return
        step = self.state.step
        self.log.write("forecasts.jsonl", {"step": step, **outlook.row})
        self._band = ", ".join(filter(None, (outlook.band, forecaster.band)))
        if not outlook.reasons:
            return
        what = "; ".join(outlook.reasons)
        self.event("stopped early" if outlook.stop else "would stop", what=what)
        if outlook.stop:
            self.checkpoint()
            self.writer.wait()
            raise EarlyStop(
                f"stopped early: {what}",
                where=f"step {step}",
                fix="To go on all the same, run it again with --forecast.stop-when-lost False "
                "--forecast.stop-when-idle False",
            )

    def _load(self, path: Path) -> LoopState:
        return load_checkpoint(
            path, self._model, self._optimizer, self._average, self._config.ranks
        )

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.swapped_in()

    def _write_metrics(self, lr: float, grad_norm: float) -> None:
        state, now = self.state, time.perf_counter()
        speed = (state.tokens - self._logged_tokens) / (now - self._logged_at)
        row = _metrics(state, lr, grad_norm, speed, self._config)
        position = self._task.position(state.step + state.data_offset)
        slowest = self._config.ranks.slowest(self._alone_seconds)
        self._alone_seconds = 0.0
        self.log.write("metrics.jsonl", {**row, **self._updates, **position, **slowest})
        self._logged_at, self._logged_tokens = now, state.tokens
        loss = f"loss {state.loss_sum / state.loss_count:.3f}"
        self._progress.advance(state.tokens, ", ".join(filter(None, (loss, self._band))))
        self.state = replace(state, loss_sum=0.0, loss_count=0, noise=NoiseSums())


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
    if (noise := state.noise.scale) is not None:
        row["gradient_noise_tokens"] = noise
    if config.precision.scales_loss:
        row |= {"loss_scale": state.loss_scale.value, "overflows": state.loss_scale.overflows}
    if config.peak_flops is not None:
        row["mfu"] = speed * config.flops_per_token / config.peak_flops
    return row


def _with_noise(sums: NoiseSums, gradient: Gradient) -> NoiseSums:
    if gradient.first_square is None:
        return sums
    return sums.add(gradient.first_square, gradient.first_count, gradient.norm**2, gradient.count)
