"""The processes of a run: their start and end, what they tell each other, and who takes what.

Not for how a model is cut (`apply.py`). A run of one process has `Ranks()`, which asks nobody.
"""

from __future__ import annotations

import os
import signal
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from isoflop.core.errors import IsoflopError, RunError
from isoflop.training.parallel.recipe import ParallelConfig, require_processes
from isoflop.training.parallel.watch import Watch, is_of_ranks, is_timeout

MESH = ("pp", "dp", "shard", "tp")
"""Axes of the mesh: ranks of `fsdp` and of `cp` share the weights alike."""
SHARD = ("fsdp", "ep", "cp")
"""What `shard` is made of; here `fsdp` is that of the recipe over `ep`."""
T = TypeVar("T")


class Counted(Protocol):
    """What must be known of a micro-batch here."""

    @property
    def n_valid(self) -> int:
        """Positions that carry loss."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run and this one's place among them."""

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    rank: int = 0
    mesh: DeviceMesh | None = None
    """By `MESH`; None for a run of one process."""
    fine: DeviceMesh | None = None
    """The same with `SHARD` in place of `shard`, where that is made of several."""
    watch: Watch | None = None
    """Where each one stands."""
    group: dist.ProcessGroup | None = None
    """What they speak to each other by; torch's own group where None."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes the run's files."""
        return self.rank == 0

    @property
    def size(self) -> int:
        """How many there are."""
        return self.parallel.devices

    def at(self, step: int, doing: str) -> None:
        """Tell the others where this one is, should they wait for it."""
        if self.watch is not None:
            self.watch.at(step, doing)

    def beside(self) -> Ranks:
        """The same ranks for another thread of each, whose messages do not cross those of this one;
        all of them ask for it together."""
        if self.mesh is None:
            return self
        patience = timedelta(seconds=self.parallel.patience_seconds)
        return replace(self, group=dist.new_group(backend="gloo", timeout=patience), watch=None)

    def shares(self, batches: Sequence[T]) -> list[tuple[T, bool]]:
        """This rank's part of a global batch, micro-batch by micro-batch: neighbouring ones.

        All ranks take equally many, as each pass is one of all of them together: where the batch
        does not come out even, some take one again that does not count (the False beside it).
        """
        ranks = self.parallel.data_ranks
        if self.mesh is None or ranks == 1:
            return [(batch, True) for batch in batches]
        dp, shard = self.mesh.get_local_rank("dp"), self.mesh.get_local_rank("shard")
        index, each = dp * self.parallel.fsdp + shard // self.parallel.cp, -(-len(batches) // ranks)
        places = range(index * each, (index + 1) * each)
        return [(batches[min(at, len(batches) - 1)], at < len(batches)) for at in places]

    def first_of_all(self, batches: Sequence[Counted]) -> int:
        """Valid positions of the micro-batches that the ranks take first."""
        ranks = self.parallel.data_ranks
        return sum(batch.n_valid for batch in batches[:: -(-len(batches) // ranks)][:ranks])

    def summed(self, values: Sequence[float]) -> list[float]:
        """The values added up over all ranks, in float64."""
        if self.mesh is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        found: list[float] = total.tolist()
        return found

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        if self.mesh is None:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return int(found.item())

    def slowest(self, seconds: float) -> dict[str, float]:
        """Of the seconds that each rank spent without the others: who spent the most, how many, and
        the median; nothing for a run of one process."""
        if self.mesh is None:
            return {}
        spent = self.gathered(seconds)
        most = max(spent)
        return {
            "slowest_rank": spent.index(most),
            "slowest_seconds": most,
            "median_seconds": statistics.median(spent),
        }

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, on each."""
        if self.mesh is None:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def together(self, act: Callable[[], T]) -> T:
        """What `act` gives on this rank, once it is done on all.

        Raises:
            IsoflopError, OSError: The first that one of the ranks met, on every one of them.
        """
        if self.mesh is None:
            return act()
        value, error = _attempt(act)
        for met in self.gathered(error):
            if met is not None:
                raise met
        return value  # type: ignore[return-value]

    def from_main(self, act: Callable[[], T]) -> T:
        """What `act` gives on the main rank, which alone does it.

        Raises:
            IsoflopError, OSError: As there, on every rank.
        """
        if self.mesh is None:
            return act()
        said = [_attempt(act) if self.is_main else (None, None)]
        cpu = torch.device("cpu")
        dist.broadcast_object_list(said, src=0, group=self.group, device=cpu)
        value, error = said[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def main_first(self, act: Callable[[], T]) -> T:
        """What `act` gives here, after the main rank has done it: what is measured or built once
        and then found again."""
        if self.mesh is None:
            return act()
        done = self.from_main(act)
        return done if self.is_main else act()


def _attempt(act: Callable[[], T]) -> tuple[T | None, IsoflopError | OSError | None]:
    try:
        return act(), None
    except (IsoflopError, OSError) as error:
        return None, error


@contextmanager
def processes(parallel: ParallelConfig) -> Iterator[Ranks]:
    """Join the other processes of the run, which torchrun has started, and leave them at the end.

    Raises:
        RecipeError: The layout is for another number of processes.
        RunError: One of the others was lost on the way.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    require_processes(parallel, started)
    if started == 1:
        yield Ranks(parallel)
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    patience = timedelta(seconds=parallel.patience_seconds)
    met, rank, size = next(rendezvous("env://", timeout=patience))
    # Torchrun keeps its store over restarts: without a name of its own for each attempt, a rank
    # that begins again finds the addresses of ranks that are gone.
    store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), met)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, timeout=patience, store=store, rank=rank, world_size=size)
    watch = Watch(store, rank, size)
    try:
        # It warns of writing into the output of a layer, which nothing here does.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        yield replace(_laid_out(parallel, "cuda" if on_gpu else "cpu", patience), watch=watch)
    except RuntimeError as error:
        with suppress(ValueError):  # not the main thread, which alone has handlers
            # Torchrun ends the others as soon as one is lost; this one ends, once it has said why.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if is_timeout(error):
            raise watch.hung(error, patience.total_seconds()) from error
        if not is_of_ranks(error):
            raise
        raise RunError(
            f"another process of the run was lost: {str(error).strip().splitlines()[0]}",
            where=f"rank {os.environ.get('RANK', '?')}",
            fix="The same command continues from the last checkpoint; with `torchrun "
            "--max-restarts 3` it does so by itself",
        ) from error
    finally:
        dist.destroy_process_group()


def _laid_out(parallel: ParallelConfig, device: str, patience: timedelta) -> Ranks:
    shard = parallel.fsdp * parallel.cp
    sizes = (parallel.pp, parallel.dp, shard, parallel.tp)
    mesh = init_device_mesh(device, sizes, mesh_dim_names=MESH)
    fine = None
    if parallel.ep > 1 or parallel.cp > 1:
        parts = (parallel.fsdp // parallel.ep, parallel.ep, parallel.cp)
        fine = mesh._unflatten("shard", parts, SHARD)
    for group in (*mesh.get_all_groups(), *(fine.get_all_groups() if fine is not None else ())):
        # Groups are made with the patience of their backend, and not of the first group.
        dist.distributed_c10d._set_pg_timeout(patience, group)
    return Ranks(parallel, dist.get_rank(), mesh, fine)
