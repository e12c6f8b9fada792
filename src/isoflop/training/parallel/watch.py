"""Where each rank of a run stands, so that one that hangs can be named; not for the loss of a rank
that is gone, which the others' connections tell (`ranks.py`)."""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch.distributed.distributed_c10d import Store

from isoflop.core.errors import RunError

_WRAPPERS = {"wrapper", "wait", "_wait_batch_p2p"}


GRACE_SECONDS = 2.0
"""How long a rank that gave up waiting leaves the others to say the same."""


@dataclass(frozen=True)
class Place:
    """What a rank said last of itself."""

    step: int
    doing: str
    waiting: bool
    """Whether it has given up on others."""
    since: float
    """Seconds of the epoch."""


class Watch:
    """The ranks' board: each writes on it where it is, and reads it when it has waited in vain.

    Args:
        store: What the ranks met by.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._own = Place(0, "start", waiting=False, since=time.time())
        self._say()

    def at(self, step: int, doing: str) -> None:
        """Say where this rank is."""
        self._own = Place(step, doing, waiting=False, since=time.time())
        self._say()

    def give_up(self) -> None:
        """Say that this rank waits in vain, and so is none that the others wait for."""
        self._own = replace(self._own, waiting=True)
        self._say()

    def _say(self) -> None:
        self._store.set(f"place/{self._rank}", json.dumps(asdict(self._own)))

    def places(self) -> dict[int, Place]:
        """Where each rank said it is; those that never said so are left out."""
        keys = {rank: f"place/{rank}" for rank in range(self._size)}
        return {
            rank: Place(**json.loads(self._store.get(key)))
            for rank, key in keys.items()
            if self._store.check([key])
        }

    def hung(self, error: BaseException, seconds: float) -> RunError:
        """The error of a rank that has waited so long: for which ones, and in what."""
        try:
            self.give_up()
            time.sleep(GRACE_SECONDS)
            places = self.places()
        except RuntimeError:  # whoever keeps the board hangs
            places = {self._rank: self._own}
        late = [
            f"rank {rank} ({place.doing} of step {place.step}, "
            f"{time.time() - place.since:.0f} s ago)"
            for rank, place in places.items()
            if not place.waiting and rank != self._rank
        ]
        late += [f"rank {rank} (nothing heard)" for rank in range(self._size) if rank not in places]
        own = self._own
        return RunError(
            f"waited {seconds:.0f} s in {operation(error)}, in the {own.doing} of step {own.step}, "
            f"for {', '.join(late) or 'ranks that all wait as well: messages were lost'}",
            where=f"rank {self._rank}",
            fix="Look at the log and the machine of whom it waited for; the same command continues "
            "from the last checkpoint. parallel.patience_seconds says how long to wait",
        )


def operation(error: BaseException) -> str:
    """The collective that an error came out of, by the name that torch gives it."""
    found = "a message"
    inner: BaseException | None = error
    while inner is not None:
        for frame in traceback.extract_tb(inner.__traceback__):
            here = Path(frame.filename).parts
            if "distributed" in here and "torch" in here and frame.name not in _WRAPPERS:
                found = frame.name
        inner = inner.__cause__
    return found


def is_timeout(error: BaseException) -> bool:
    """Whether torch gave up waiting."""
    return "timed out" in _told(error).lower() or "timeout" in _told(error).lower()


def is_of_ranks(error: BaseException) -> bool:
    """Whether torch says that other ranks did not answer."""
    told = _told(error).lower()
    return any(name in told for name in ("gloo", "nccl", "connection"))


def _told(error: BaseException) -> str:
    lines: list[Any] = []
    inner: BaseException | None = error
    while inner is not None:  # schedules of pipelines wrap what they meet
        lines.append(inner)
        inner = inner.__cause__
    return "\n".join(map(str, lines))
