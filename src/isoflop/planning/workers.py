"""Fresh processes for training and probing, with their share of the cores; no torch in here.

Not for which work there is (`ladder.py`, `demo.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.core.errors import RunError
from isoflop.core.process import begin_worker, sigterm_as_interrupt
from isoflop.training.recipe import TrainRecipe

if TYPE_CHECKING:
    from isoflop.training.pretrain import TrainResult
    from isoflop.training.probe import Probe


CHECKPOINT_SECONDS = 10.0
"""How long a worker has to write its checkpoint when it is stopped; killing it later is safe."""


@contextmanager
def workers(count: int, where: Path) -> Iterator[ProcessPoolExecutor]:
    """`count` worker processes that end with this block, or with this process.

    Raises:
        RunError: A worker was killed.
    """
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=begin_worker)
    try:
        with sigterm_as_interrupt():
            yield pool
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed (out of memory?)",
            where=str(where),
            fix="Run the same command again; it continues. Fewer processes need less memory",
        ) from None
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            # SIGTERM lets a run in mid-flight write its checkpoint.
            process.terminate()
        for process in processes:
            # A worker that has written its checkpoint goes back to waiting for work, and whether
            # the pool then tells it to end is a race: what is left after that is ended here.
            process.join(CHECKPOINT_SECONDS)
            process.kill()
            process.join()


def train_in_worker(
    recipe: TrainRecipe, out: Path, threads: int, branch_from: Path | None = None
) -> TrainResult:
    """`training.train` on `threads` cores; to be submitted to a worker, which imports torch."""
    from isoflop.training.pretrain import train

    return train(_with_threads(recipe, threads), out, branch_from=branch_from)


def probe_in_worker(recipe: TrainRecipe, threads: int) -> Probe:
    """`training.probe` on `threads` cores; to be submitted to a worker, which imports torch."""
    from isoflop.training.probe import probe

    return probe(_with_threads(recipe, threads))


def _with_threads(recipe: TrainRecipe, threads: int) -> TrainRecipe:
    return replace(recipe, train=replace(recipe.train, threads=threads))
