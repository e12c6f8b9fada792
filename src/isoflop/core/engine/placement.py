"""Where tasks run: in this process, in others, on a Ray cluster, or through Slurm.

Not for what they do: every placement calls the same `run_task`, so answers cannot differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from isoflop.core.engine.task import Task, run_task
from isoflop.core.errors import RecipeError, RunError
from isoflop.core.hardware import usable_cores
from isoflop.core.process import begin_worker, sigterm_as_interrupt

ATTEMPTS = 3
"""How often a task is begun whose worker is killed, before that is an error."""

AUTO = "auto"
INLINE = "inline"
# Below this much work, starting processes takes longer than they save.
_WORTH_PROCESSES_BYTES = 8_000_000
_MAX_INLINE_THREADS = 8
_END_SECONDS = 2.0


class Placement(Protocol):
    """Runs tasks, in any order, until all are finished."""

    def run(self, tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        """Run tasks whose inputs are ready; `done` is told of each as it finishes."""


@contextmanager
def open_placement(spec: str, folder: Path, n_bytes: int) -> Iterator[Placement]:
    """Open a placement by its name; what it started ends with the block.

    Args:
        spec: `inline`; `processes` or `processes:N` (the cores of this machine); `ray`, `ray:N`
            (a cluster here, of N workers) or `ray:ADDRESS`; `slurm` or `slurm:N` (array jobs of
            at most N); `auto`: processes where the work is worth them, else inline.
        folder: The working folder.
        n_bytes: About how much work there will be.

    Raises:
        RecipeError: There is no such placement, or the package it needs is not installed.
    """
    kind, _, detail = spec.partition(":")
    if spec == AUTO:
        kind = "processes" if n_bytes > _WORTH_PROCESSES_BYTES and usable_cores() > 1 else INLINE
    if kind == INLINE and not detail:
        yield Inline()
    elif kind == "processes":
        with Processes(_count(spec, detail, usable_cores()), folder) as processes:
            yield processes
    elif kind == "ray":
        from isoflop.core.engine.on_ray import ray_cluster

        with ray_cluster(detail) as cluster:
            yield cluster
    elif kind == "slurm":
        from isoflop.core.engine.on_slurm import DEFAULT_JOBS, Slurm

        yield Slurm(folder, _count(spec, detail, DEFAULT_JOBS))
    else:
        raise RecipeError(
            f"there is no placement `{spec}`",
            where="--placement",
            fix="There are auto, inline, processes[:N], ray[:N or :ADDRESS] and slurm[:N]",
        )


def _count(spec: str, detail: str, default: int) -> int:
    if not detail:
        return default
    if not detail.isdecimal() or int(detail) == 0:
        raise RecipeError(
            f"`{detail}` is not a number of workers", where=f"--placement {spec}", fix="Say 1, 2 …"
        )
    return int(detail)


class Inline:
    """One task after the other, here; a task may use all cores by threads."""

    def run(self, tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        """Run the tasks."""
        threads = min(_MAX_INLINE_THREADS, usable_cores())
        for task in tasks:
            run_task(task, threads)
            done(task)


class Processes:
    """Fresh processes on this machine, one task at a time in each.

    Each is a pool of its own, so that a killed one is known by its task and costs no other's.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self._lanes: list[ProcessPoolExecutor | None] = [None] * count
        self._folder = folder

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for lane in range(len(self._lanes)):
            self._end(lane)

    def run(self, tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        """Run the tasks.

        Raises:
            RunError: The worker of one task was killed `ATTEMPTS` times.
        """
        waiting = deque((task, 1) for task in tasks)
        free = list(range(len(self._lanes)))[::-1]
        running: dict[Future[None], tuple[int, Task, int]] = {}
        with sigterm_as_interrupt():
            while waiting or running:
                while waiting and free:
                    task, attempt = waiting.popleft()
                    lane = free.pop()
                    running[self._submit(lane, task)] = lane, task, attempt
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    lane, task, attempt = running.pop(future)
                    free.append(lane)
                    try:
                        future.result()
                    except BrokenProcessPool:
                        self._end(lane)
                        if attempt == ATTEMPTS:
                            raise killed(task, self._folder) from None
                        waiting.appendleft((task, attempt + 1))
                    else:
                        done(task)

    def _submit(self, lane: int, task: Task) -> Future[None]:
        pool = self._lanes[lane]
        if pool is None:
            context = get_context("spawn")
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=begin_worker)
            self._lanes[lane] = pool
        try:
            return pool.submit(run_task, task)
        except BrokenProcessPool:  # it was killed while it had nothing to do
            self._end(lane)
            return self._submit(lane, task)

    def _end(self, lane: int) -> None:
        pool = self._lanes[lane]
        if pool is None:
            return
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
            process.join(_END_SECONDS)
            process.kill()
            process.join()
        self._lanes[lane] = None


def killed(task: Task, folder: Path) -> RunError:
    """What is said when the worker of a task was killed too often."""
    return RunError(
        f"the worker of `{task.label}` was killed {ATTEMPTS} times (out of memory?)",
        where=str(folder),
        fix="Run the same command again; it continues. Fewer workers need less memory",
    )
