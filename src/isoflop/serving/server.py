"""Runs a service on a socket until it is told to stop; not for its routes (`api.py`)."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from isoflop.core.errors import RecipeError
from isoflop.serving.api import build_app
from isoflop.serving.service import Service

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one.

    Raises:
        RecipeError: The port is taken or not allowed, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        number = getattr(error, "errno", None)
        what = {
            errno.EADDRINUSE: f"port {port} is taken by another program",
            errno.EACCES: f"port {port} needs the rights of an administrator",
            errno.EADDRNOTAVAIL: f"{host} is no address of this machine",
        }.get(number or 0, f"cannot listen on {host}:{port} ({error})")
        raise RecipeError(
            what, where="--host/--port", fix="Choose another with --port, or 0 for any free one"
        ) from None
    return bound


def serve(service: Service, bound: socket.socket, ready: Callable[[str], None]) -> None:
    """Answer until SIGTERM or Ctrl-C; then refuse new clients, finish the answers under way within
    the settings' time, and close the service.

    Args:
        ready: Called with the address once clients can come.
    """
    host, port = bound.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = uvicorn.Config(
        build_app(service),
        log_level=logging.WARNING,
        access_log=False,
        timeout_graceful_shutdown=service.settings.drain_seconds,
        timeout_keep_alive=30,
        server_header=False,
    )
    server = _Server(config, lambda: ready(address))
    server.run(sockets=[bound])


class _Server(uvicorn.Server):
    """Tells when clients can come, and leaves the exit to us."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and Ctrl-C; a server that was told to stop has not failed, so the
        signal is not raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the sockets and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()
