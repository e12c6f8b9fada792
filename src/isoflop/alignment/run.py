"""What runs of SFT, reward, DPO, PPO and GRPO have in common: the directory, the loop's settings.

Not for what is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from isoflop.core.artifact import MANIFEST, read_json, read_manifest, write_atomic, write_json
from isoflop.core.console import warn
from isoflop.core.errors import ArtifactError
from isoflop.core.hardware import calibrate
from isoflop.core.lock import locked
from isoflop.core.process import keep_freed_buffers
from isoflop.core.recipe import to_dict
from isoflop.models.accounting import flops_per_token
from isoflop.models.config import DecoderConfig
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.loop import LoopConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.parallel.ranks import Ranks
from isoflop.training.run_directory import claim_for, seal_for
from isoflop.training.schedules import learning_rate_factor

R = TypeVar("R", bound="Finished")
LEFT_OUT = "left_out.jsonl"
_MADE_BY = {
    "instruct": "data instruct",
    "model": "train",
    "reward-model": "reward",
    "shards": "tokenize",
}
"""Kind of artifact → the command that makes it."""


class Finished(Protocol):
    """What a run came to: a dataclass of values that JSON has, but for its field `run`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Logged(Protocol):
    """The table of a recipe that says how often things are written down."""

    @property
    def log_every(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def tensorboard(self) -> bool: ...


def in_directory(
    out: Path,
    recipe: Any,
    inputs: Sequence[tuple[Path, str]],
    seed: int,
    threads: int | None,
    make: Callable[[Mapping[str, Any]], R],
    work: Callable[[], R],
    ranks: Ranks | None = None,
) -> R:
    """Do the work of a recipe in its run directory, or read what it came to.

    Args:
        inputs: Artifacts that are read, each with the kind it must be.
        make: Builds the result from its fields.
        work: Runs or continues; its result has a field `run`.
        ranks: The processes that do it together, of which the main one writes.

    Raises:
        RunError: The directory belongs to another recipe or version.
        ArtifactError: An input is missing, unfinished or of another kind.
    """
    ranks, read = ranks or Ranks(), [path for path, _ in inputs]
    with ExitStack() as held:

        def take() -> None:
            for path, kind in inputs:
                if not path.exists():
                    fix = f"`isoflop {_MADE_BY[kind]}` makes one"
                    raise ArtifactError("no such directory", where=str(path), fix=fix)
                read_manifest(path, kind)
            held.enter_context(locked(out))
            claim_for(out, to_dict(recipe), read, "what it reads is another")

        ranks.from_main(take)
        finished = out / "result.json"
        if ranks.from_main(finished.exists):
            result = make({**read_json(finished), "run": out})
        else:
            torch.set_num_threads(threads or torch.get_num_threads())
            keep_freed_buffers()
            result = work()
            if ranks.is_main:
                write_json(finished, {**asdict(result), "run": out.name})
        if ranks.is_main and not (out / MANIFEST).exists():  # a kill may have come between the two
            seal_for(out, to_dict(recipe), read, seed)
        return result


def write_left_out(
    out: Path, left_out: Sequence[Mapping[str, Any]], counted: Mapping[str, int], ranks: Ranks
) -> None:
    """List rows that are not used by file and line in the run directory, and say how many."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in left_out]
    ranks.from_main(lambda: write_atomic(out / LEFT_OUT, "".join(lines)))
    if left_out and ranks.is_main:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in counted.items())
        warn(f"left out or cut: {counts} ({out / LEFT_OUT})")


def loop_config(
    table: Logged,
    optimizer: OptimizerConfig,
    guard: GuardConfig,
    model: DecoderConfig,
    steps: int,
    step_tokens: int,
    seq_len: int,
    facts: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
) -> LoopConfig:
    """The loop's settings.

    Args:
        step_tokens: Positions of a step, at most.
        seq_len: Positions of a row, at most.
        ranks: The processes that train together.
    """
    ranks = ranks or Ranks()
    return LoopConfig(
        steps=steps,
        batch_tokens=lambda step: step_tokens,
        flops_per_token=flops_per_token(model, seq_len).training,
        peak_flops=peak_flops(ranks),
        clip_norm=optimizer.clip_norm,
        log_every=table.log_every,
        evaluate_at=frozenset(
            round(steps * (i + 1) / table.evaluations) for i in range(table.evaluations)
        ),
        checkpoint_every=table.checkpoint_every,
        keep_checkpoints_at=frozenset(),
        tensorboard=table.tensorboard,
        guard=guard,
        average_decay=optimizer.average_decay,
        facts=facts or {},
        ranks=ranks,
    )


def peak_flops(ranks: Ranks) -> float | None:
    """Measured FLOP/s of all processes together; None for a count of threads not measured."""
    measured = ranks.main_first(calibrate).gflops["float32"].get(torch.get_num_threads())
    return None if measured is None else measured * 1e9 * ranks.size


def rate_over(optimizer: OptimizerConfig, steps: int, step_tokens: int) -> Callable[[int], float]:
    """Tokens before a step → its learning rate."""

    def rate(tokens: int) -> float:
        # Taken at the middle of the step, as in pre-training.
        return optimizer.learning_rate * learning_rate_factor(
            tokens + step_tokens // 2,
            total_tokens=steps * step_tokens,
            warmup_tokens=optimizer.warmup_tokens,
            schedule=optimizer.schedule,
            decay_fraction=optimizer.decay_fraction,
            final_fraction=optimizer.final_fraction,
        )

    return rate
