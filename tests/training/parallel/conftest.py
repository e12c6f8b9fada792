"""Real processes that train together over gloo, from a forkserver kept for the whole session."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Pool:
    """Processes of a forkserver that has torch imported: each costs a fork.

    They serve one call each. Torch keeps meshes of earlier process groups in its caches, by which a
    process that joins another run takes the wrong group.
    """

    def __init__(self, cache: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        modules = ["isoflop.training.pretrain", "isoflop.training.parallel.pipeline"]
        self._context.set_forkserver_preload(modules)
        self._cache = cache

    def run(
        self, ranks: int, call: Callable[..., Any] | tuple[str, str], *args: object
    ) -> list[Any]:
        """What the call gives on each of so many ranks; an exception is an answer too.

        Args:
            call: What a process can import, or the path of a file and a name in it.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        members = []
        for rank in range(ranks):
            environment = {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "ISOFLOP_CACHE": str(self._cache), "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            mine, theirs = self._context.Pipe(duplex=False)
            job = {"tell": theirs, "job": (environment, call, args)}
            path = str(Path(__file__).with_name("rank.py"))
            process = self._context.Process(target=runpy.run_path, args=(path, job), daemon=True)
            process.start()
            theirs.close()
            members.append((process, mine))
        try:
            return [mine.recv() for _, mine in members]
        finally:
            for process, _ in members:
                process.join(5)
                process.kill()


@pytest.fixture(scope="session")
def pool(calibrated_cache: Path) -> Pool:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the forkserver, before it starts
    return Pool(calibrated_cache)
