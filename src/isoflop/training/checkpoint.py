"""Checkpoints of a run: written aside, hashed, renamed; the newest whole one is found again.

The tensors are torch's distributed checkpoint (DCP) by parameter name, so that a checkpoint does
not remember the layout that wrote it. Not for when they are written, and beside what
(`checkpoint_writer.py`), nor for finished models (`models/convert.py`).
"""

from __future__ import annotations

import re
import shutil
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from isoflop.core.artifact import (
    build_directory,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from isoflop.core.errors import ArtifactError
from isoflop.training.average import WeightAverage
from isoflop.training.guard import GuardState
from isoflop.training.health import NoiseSums
from isoflop.training.loss_scale import LossScale
from isoflop.training.parallel.ranks import Ranks

FORMAT = 4
"""Version of the layout below; a checkpoint of another one is refused, never guessed at."""
STATE = "loop.json"
BY_NAME = StateDictOptions(flatten_optimizer_state_dict=True)
"""Moments and settings under the name of each parameter, and not of a group of those here."""


@dataclass(frozen=True)
class LoopState:
    """Everything the loop knows beside weights and optimizer moments."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Training tokens consumed."""
    flops: float = 0.0
    """Training FLOPs spent, by the accounting formulas."""
    seconds: float = 0.0
    """Wall-clock seconds of training over all sessions of the run."""
    loss_sum: float = 0.0
    """Summed loss in nats since the last metrics line."""
    loss_count: int = 0
    """Valid tokens behind `loss_sum`."""
    log_bytes: dict[str, int] = field(default_factory=dict)
    """Length of each log file at this step; what lies beyond is cut off on resuming."""
    log_crc32: dict[str, int] = field(default_factory=dict)
    """CRC-32 of those bytes: a log that was damaged is not continued."""
    data_offset: int = 0
    """Batches passed over because of steps that spoilt the run."""
    noise: NoiseSums = field(default_factory=NoiseSums)
    """Estimates of the gradient's noise since the last metrics line."""
    guard: GuardState = field(default_factory=GuardState)
    """What the guard remembers."""
    loss_scale: LossScale = field(default_factory=LossScale)
    """Of the gradients in float16."""


def save_checkpoint(
    directory: Path,
    model: nn.Module,
    optimizer: Optimizer,
    state: LoopState,
    average: WeightAverage | None = None,
    ranks: Ranks | None = None,
) -> Path:
    """Write `directory/step_N`, visible only once every rank's part is on disk, and return it.

    Raises:
        OSError: A rank could not write its part; nothing is left of any.
    """
    ranks, final = ranks or Ranks(), checkpoint_path(directory, state.step)
    if not ranks.from_main(final.exists):
        building, aside = begin_directory(final, ranks)
        tensors = checkpoint_tensors(model, optimizer, average)
        write_parts(building, aside, tensors, state, ranks)
    return final


def begin_directory(final: Path, ranks: Ranks) -> tuple[ExitStack, Path]:
    """Make the directory that becomes `final` once the stack is closed, which the main rank does.

    Raises:
        OSError: It could not be made.
    """
    building = ExitStack()
    return building, ranks.from_main(lambda: building.enter_context(build_directory(final)))


def write_parts(
    building: ExitStack, aside: Path, tensors: dict[str, Any], state: LoopState, ranks: Ranks
) -> None:
    """Write this rank's part of the tensors into `aside`, and on the main rank the record of all.

    Raises:
        OSError: One of the ranks could not; the same on all of them, and nothing is left.
    """
    with building:
        try:
            save(
                tensors,
                checkpoint_id=aside,
                no_dist=ranks.mesh is None,
                process_group=ranks.group,
            )
        except CheckpointException as error:
            raise _cause(error) from None
        own = sorted(aside.glob(f"__{ranks.rank}_*"))
        hashes = ranks.gathered(ranks.together(lambda: {p.name: sha256_file(p) for p in own}))

        def finish() -> None:
            files = {p.name: sha256_file(p) for p in aside.glob(".*")}
            files |= {name: value for part in hashes for name, value in part.items()}
            content = {"files": dict(sorted(files.items())), "loop": asdict(state)}
            signed = {"format": FORMAT, "sha256": sha256_json(content), **content}
            write_json(aside / STATE, signed)
            building.close()  # the directory gets its name: all parts are on disk

        ranks.from_main(finish)


def checkpoint_tensors(
    model: nn.Module, optimizer: Optimizer, average: WeightAverage | None
) -> dict[str, Any]:
    """What DCP writes and fills: tensors by the names of parameters."""
    # For good: filters are the process's, and a thread may be writing.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    weights, moments = get_state_dict(model, optimizer, options=BY_NAME)
    tensors: dict[str, Any] = {"model": weights, "optimizer": moments}
    return tensors | ({} if average is None else {"average": average.weights})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    average: WeightAverage | None = None,
    ranks: Ranks | None = None,
) -> LoopState:
    """Load weights, moments and the mean of the weights in place and return the loop's state.

    Each rank reads what it holds, however many ranks there are and were. Of the hashes, each
    checks some.

    Raises:
        ArtifactError: A file is missing or differs from its hash, or the format is another one.
    """
    ranks = ranks or Ranks()
    record = ranks.together(lambda: _checked(path, ranks))
    tensors = checkpoint_tensors(model, optimizer, average)
    load(tensors, checkpoint_id=path, no_dist=ranks.mesh is None)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=tensors["model"],
        optim_state_dict=tensors["optimizer"],
        options=BY_NAME,
    )
    loop = dict(record["loop"])
    guard = loop.pop("guard")
    memory = GuardState(**{**guard, "losses": tuple(guard["losses"])})
    return LoopState(
        **loop
        | {
            "guard": memory,
            "noise": NoiseSums(**loop["noise"]),
            "loss_scale": LossScale(**loop["loss_scale"]),
        }
    )


def _checked(path: Path, ranks: Ranks) -> dict[str, Any]:
    """The record of a checkpoint, once this rank's share of its files has the right hashes."""
    record = read_json(path / STATE)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ArtifactError(
            f"the checkpoint's format is not {FORMAT}, the one this version reads",
            where=str(path / STATE),
            fix="Continue it with the version of Isoflop that wrote it, or start in a new "
            "directory",
        )
    content = {key: record.get(key) for key in ("files", "loop")}
    if record.get("sha256") != sha256_json(content):
        raise _damaged(path / STATE)
    for name, expected in list(record["files"].items())[ranks.rank :: ranks.size]:
        if not (path / name).exists() or sha256_file(path / name) != expected:
            raise _damaged(path / name)
    return record


def _cause(error: CheckpointException) -> BaseException:
    """What went wrong inside DCP, which wraps it for each rank: a full disk, if it was one."""
    wrapped, _ = next(iter(error.failures.values()))
    inner: BaseException | None = wrapped
    while inner is not None and not isinstance(inner, OSError):
        inner = inner.__cause__ or inner.__context__
    return inner or wrapped


def _damaged(file: Path) -> ArtifactError:
    return ArtifactError(
        "the file is missing or differs from the hash taken when it was written",
        where=str(file),
        fix=f"Remove {file.parent}: the run continues from the checkpoint before it, or from the "
        "start",
    )


def checkpoint_path(directory: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies in a `checkpoints` directory."""
    return directory / f"step_{step:08d}"


def latest_checkpoint(directory: Path) -> Path | None:
    """The whole checkpoint with the most steps, or None; half-written ones, which a killed process
    has left, are removed."""
    for leftover in directory.glob(".step_*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    found = checkpoints(directory)
    return found[max(found)] if found else None


def checkpoints(directory: Path) -> dict[int, Path]:
    """Whole checkpoints by step."""
    names = {path: re.fullmatch(r"step_(\d+)", path.name) for path in directory.glob("step_*")}
    return {int(match[1]): path for path, match in names.items() if match}


def begun_checkpoints(directory: Path) -> set[int]:
    """Steps of checkpoints that are whole or being written."""
    # In this order: one that is finished in between is among the whole ones.
    names = [path.name for path in directory.glob(".step_*.partial")]
    writing = [re.match(r"\.step_(\d+)\.", name) for name in names]
    return {int(match[1]) for match in writing if match} | set(checkpoints(directory))


def remove_checkpoints(directory: Path, *, keep: set[int]) -> None:
    """Remove all checkpoints but those of the steps in `keep`."""
    for step, path in checkpoints(directory).items():
        if step not in keep:
            # Out of sight first: a kill in between must not leave half a checkpoint.
            aside = path.with_name(f".{path.name}.partial")
            path.rename(aside)
            shutil.rmtree(aside)
