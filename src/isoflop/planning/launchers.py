"""Where the runs of a ladder are trained: in processes of this machine, or on a Ray cluster.

Not for which runs there are (`ladder.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from isoflop.core.engine.on_ray import ray_connection
from isoflop.core.engine.placement import ATTEMPTS
from isoflop.core.errors import RecipeError, RunError
from isoflop.core.hardware import usable_cores
from isoflop.core.process import sigterm_as_interrupt
from isoflop.planning.workers import workers

LOCAL = "local"
T = TypeVar("T")


class Submit(Protocol):
    """Takes calls to be made elsewhere."""

    def submit(self, call: Callable[..., T], /, *args: Any) -> Future[T]:
        """Its answer, when it comes."""


@dataclass(frozen=True)
class Lanes:
    """Runs side by side."""

    count: int
    threads: int
    """Cores of each."""
    pool: Submit


def local_lanes(count: int | None) -> tuple[int, int]:
    """(runs side by side, cores of each) on this machine, where so many were asked for."""
    lanes = count or min(8, usable_cores())
    return lanes, max(1, usable_cores() // lanes)


@contextmanager
def open_lanes(launcher: str, count: int | None, out: Path) -> Iterator[Lanes]:
    """Open a launcher by its name; what it started ends with the block.

    Args:
        launcher: `local`; `ray`, `ray:N` (a cluster here, of N workers) or `ray:ADDRESS`, whose
            machines see `out` and the data under the same paths.
        count: Runs side by side; as many as there are cores when None.

    Raises:
        RecipeError: There is no such launcher, or Ray is not installed.
        RunError: The cluster cannot be reached, or a run's worker was lost too often.
    """
    kind, _, detail = launcher.partition(":")
    if launcher == LOCAL:
        lanes, threads = local_lanes(count)
        with workers(lanes, out) as pool:
            yield Lanes(lanes, threads, pool)
    elif kind == "ray":
        with _on_ray(detail, count, out) as found:
            yield found
    else:
        raise RecipeError(
            f"there is no launcher `{launcher}`",
            where="--launcher",
            fix="There are local and ray[:N or :ADDRESS]",
        )


@contextmanager
def _on_ray(detail: str, count: int | None, out: Path) -> Iterator[Lanes]:
    with ray_connection(detail, "--launcher") as ray, sigterm_as_interrupt():
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        lanes = count or cores
        threads = max(1, cores // lanes)
        # A run whose worker is lost begins again, elsewhere perhaps, from its own checkpoint.
        call = ray.remote(num_cpus=threads, max_retries=ATTEMPTS - 1)(_call)
        try:
            yield Lanes(lanes, threads, _OnRay(call))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
            raise RunError(
                f"the worker of a run was lost {ATTEMPTS} times (out of memory?)",
                where=str(out),
                fix="Run the same command again; it continues. Fewer processes need less memory",
            ) from None


class _OnRay:
    def __init__(self, call: Any) -> None:
        self._call = call

    def submit(self, call: Callable[..., T], /, *args: Any) -> Future[T]:
        answer: Future[T] = self._call.remote(call, *args).future()
        return answer


def _call(call: Callable[..., T], *args: Any) -> T:
    return call(*args)
