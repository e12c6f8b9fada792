"""What a process of the pool does: a call in the environment of its rank, and the answer back."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def serve(
    tell: Connection,
    environment: dict[str, str],
    call: Callable[..., Any] | tuple[str, str],
    args: Any,
) -> None:
    os.environ.update(environment)
    try:
        if isinstance(call, tuple):  # a function of a file that no process can import
            path, name = call
            call = runpy.run_path(path)[name]
        answer = call(*args)
    except BaseException as error:  # noqa: BLE001 - whoever asked is to judge it
        answer = error
    tell.send(answer)


serve(tell, *job)  # type: ignore[name-defined] # noqa: F821 - given by runpy
