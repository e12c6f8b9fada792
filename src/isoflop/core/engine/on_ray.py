"""Tasks on a Ray cluster, here or elsewhere; not for setting one up.

All its machines must see the working folder and the sources under the same paths, and have this
package installed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isoflop.core.engine.placement import ATTEMPTS, killed
from isoflop.core.engine.task import Task, run_task
from isoflop.core.errors import RecipeError, RunError

_MAX_IN_FLIGHT = 1000


@contextmanager
def ray_cluster(detail: str) -> Iterator[OnRay]:
    """A placement on a cluster: `ray_connection` says which.

    Raises:
        RecipeError: Ray is not installed.
        RunError: The cluster cannot be reached.
    """
    with ray_connection(detail, "--placement") as ray:
        yield OnRay(ray)


@contextmanager
def ray_connection(detail: str, flag: str) -> Iterator[Any]:
    """The module of Ray, connected to a cluster or to one that is started here.

    Args:
        detail: "" for one on this machine's cores, a number for one of so many workers, else the
            address of a running one (`auto`, `host:6379`, `ray://host:10001`).
        flag: The option that asked for it, for messages.

    Raises:
        RecipeError: Ray is not installed.
        RunError: The cluster cannot be reached.
    """
    # Ray would send usage statistics from here; nothing leaves the machine unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise RecipeError(
            "the package ray is not installed",
            where=f"{flag} ray",
            fix="Install it with `pip install 'isoflop[ray]'`",
        ) from None
    here = not detail or detail.isdecimal()
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    if detail.isdecimal():
        options["num_cpus"] = int(detail)
    try:
        ray.init(
            **(options if here else {"address": detail}),
            log_to_driver=False,
            configure_logging=False,
        )
    except (ConnectionError, ValueError) as error:
        raise RunError(
            f"the Ray cluster cannot be reached: {error}",
            where=f"{flag} ray:{detail}",
            fix="Start one with `ray start --head`, or say `ray` for one on this machine",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class OnRay:
    """Each task a Ray task of one core; Ray places and retries it."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._run = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(run_task)

    def run(self, tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        """Run the tasks.

        Raises:
            RunError: The worker of one task was killed `ATTEMPTS` times.
        """
        ray, waiting = self._ray, deque(tasks)
        running: dict[Any, Task] = {}
        while waiting or running:
            while waiting and len(running) < _MAX_IN_FLIGHT:
                task = waiting.popleft()
                running[self._run.remote(task)] = task
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                task = running.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                    raise killed(task, Path(task.directory)) from None
                done(task)
