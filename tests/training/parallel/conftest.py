"""A pool of real processes that train together over gloo, kept for the whole session."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RANKS = 4


class Pool:
    """Processes that a forkserver, which has torch imported, starts as they are first needed."""

    def __init__(self, cache: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["isoflop.training.pretrain"])
        self._cache = cache
        self._members: list[Any] = []

    def run(
        self, ranks: int, call: Callable[..., Any] | tuple[str, str], *args: object
    ) -> list[Any]:
        """What the call gives on each of so many ranks; an exception is an answer too.

        Args:
            call: What a process can import, or the path of a file and a name in it.
        """
        while len(self._members) < ranks:
            mine, theirs = self._context.Pipe()
            process = self._context.Process(
                target=runpy.run_path,
                args=(str(Path(__file__).with_name("rank.py")), {"connection": theirs}),
                daemon=True,
            )
            process.start()
            self._members.append((process, mine))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank, (_, connection) in enumerate(self._members[:ranks]):
            environment = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "ISOFLOP_CACHE": str(self._cache), "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            connection.send((environment, call, args))
        return [connection.recv() for _, connection in self._members[:ranks]]

    def close(self) -> None:
        for process, connection in self._members:
            connection.send(None)
            process.join(5)
            process.kill()


@pytest.fixture(scope="session")
def pool(calibrated_cache: Path) -> Iterator[Pool]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the forkserver, before it starts
    found = Pool(calibrated_cache)
    yield found
    found.close()
