"""Checkpoints written beside the steps of a run: copied at once, then a thread's work.

Not for what a checkpoint is and when it is whole (`checkpoint.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.optim import Optimizer

from isoflop.training.average import WeightAverage
from isoflop.training.checkpoint import (
    LoopState,
    begin_directory,
    checkpoint_path,
    checkpoint_tensors,
    write_parts,
)
from isoflop.training.parallel.ranks import Ranks


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time, while the run goes on.

    A rank holds a copy of its part (12 bytes a parameter with AdamW) until it is on disk.

    Args:
        directory: Where they lie.
        ranks: The processes of the run; all make their writers at the same time.
    """

    def __init__(self, directory: Path, ranks: Ranks) -> None:
        self._directory, self._ranks = directory, ranks
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._beside = ranks.beside()
        self._writing: Future[None] | None = None

    def begin(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        state: LoopState,
        average: WeightAverage | None,
        then: Callable[[], None],
    ) -> None:
        """Copy what the checkpoint holds and return; the one before is on disk then.

        Args:
            then: What the main rank does once the checkpoint is whole.

        Raises:
            OSError: The one before could not be written, or this one's directory not be made.
        """
        self.wait()
        final = checkpoint_path(self._directory, state.step)
        if self._ranks.from_main(final.exists):
            return
        tensors = _copied(checkpoint_tensors(model, optimizer, average))
        building, aside = begin_directory(final, self._ranks)

        def write() -> None:
            write_parts(building, aside, tensors, state, self._beside)
            self._beside.from_main(then)

        self._writing = self._thread.submit(write)

    @property
    def failed(self) -> bool:
        """Whether the last one could not be written, as is known by now."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def wait(self) -> None:
        """Return once the last one is on disk.

        Raises:
            OSError: It could not be written.
        """
        if self._writing is not None:
            self._writing.result()

    def close(self) -> None:
        """End the thread, once it has written what it was given."""
        self._thread.shutdown()


def _copied(tensors: dict[str, Any]) -> dict[str, Any]:
    """A copy in this machine's memory."""
    stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=False,
            use_shared_memory=False,
            use_async_staging=False,
            use_non_blocking_copy=False,
        )
    )
    try:
        copy: dict[str, Any] = stager.stage(tensors)  # type: ignore[assignment]
    finally:
        stager.close()
    return copy
