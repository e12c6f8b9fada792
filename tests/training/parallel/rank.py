"""What a process of the pool runs: the calls that come through `connection`, one after another."""

from __future__ import annotations

import os
import runpy
from multiprocessing.connection import Connection


def serve(connection: Connection) -> None:
    while (job := connection.recv()) is not None:
        environment, call, args = job
        os.environ.update(environment)
        try:
            if isinstance(call, tuple):  # a function of a file that no process can import
                path, name = call
                call = runpy.run_path(path)[name]
            answer = call(*args)
        except BaseException as error:  # noqa: BLE001 - whoever asked is to judge it
            answer = error
        connection.send(answer)


serve(connection)  # type: ignore[name-defined] # noqa: F821 - given by runpy
