"""Gives an engine a thread of its own, and asynchronous callers their answers.

Not for HTTP (`api.py`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from isoflop.serving.engine import Engine
from isoflop.serving.request import Output, Request


class EngineGone(RuntimeError):
    """The engine's thread has ended; no answer will come."""


class Busy(RuntimeError):
    """The queue is full."""


class Answers:
    """News of several requests, for one asynchronous reader. `Worker.submit` makes them."""

    def __init__(self, worker: Worker, requests: Sequence[Request]) -> None:
        self._worker, self.requests = worker, requests
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[tuple[int, Output] | None] = asyncio.Queue()
        self.left = sum(request.n for request in requests)
        """Answers that have not ended."""
        self.numbers: list[int] = []
        """Of the requests, in the engine's thread."""

    async def __aiter__(self) -> AsyncIterator[tuple[int, Output]]:
        """(place among the requests, news) until all answers have ended.

        Raises:
            EngineGone: The engine's thread has ended.
        """
        # Not `self.left`, which the engine may have counted down before the reader begins.
        left = sum(request.n for request in self.requests)
        while left:
            news = await self._news.get() if self._worker.alive else None
            if news is None:
                raise EngineGone("the engine has ended")
            left -= news[1].finish is not None
            yield news

    def cancel(self) -> None:
        """Stop what has not ended."""
        if self.left:
            self._worker.forget(self)

    def tell(self, news: tuple[int, Output] | None) -> None:
        """Pass news on from the engine's thread; None when no more will come."""
        if news is not None:
            self.left -= news[1].finish is not None
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)


class Worker:
    """The engine's thread.

    Args:
        most_waiting: Answers that may wait for their turn beyond those that run.
    """

    def __init__(self, engine: Engine, most_waiting: int) -> None:
        self.engine = engine
        self._most_open = engine.config.most_running + most_waiting
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: set[Answers] = set()
        self._stopping = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isoflop-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether answers can be expected."""
        return not self._ended.is_set()

    @property
    def n_open(self) -> int:
        """Answers that have not ended."""
        return sum(answers.left for answers in list(self._open))

    def close(self) -> None:
        """End the thread; answers under way are dropped."""
        self._stopping = True
        self._inbox.put(lambda: None)
        self._thread.join()

    def submit(self, requests: Sequence[Request]) -> Answers:
        """Begin to answer requests that the engine has no problem with.

        Raises:
            Busy: Too many answers wait.
            EngineGone: The engine's thread has ended.
        """
        if not self.alive:
            raise EngineGone("the engine has ended")
        answers = Answers(self, requests)
        if self.n_open + answers.left > self._most_open:
            raise Busy(f"{self.n_open} answers are under way or wait")
        self._open.add(answers)
        self._inbox.put(lambda: self._begin(answers))
        return answers

    def forget(self, answers: Answers) -> None:
        """Stop answering; what is under way is dropped."""
        self._open.discard(answers)
        self._inbox.put(lambda: self._cancel(answers))

    # --- in the engine's thread -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._read_inbox()
                self.engine.step()
        finally:
            self._ended.set()
            for answers in list(self._open):
                answers.tell(None)

    def _read_inbox(self) -> None:
        """Do what was asked; wait for it if there is nothing else to do."""
        try:
            while True:
                self._inbox.get(block=not self.engine.busy and not self._stopping)()
        except queue.Empty:
            return

    def _begin(self, answers: Answers) -> None:
        for place, request in enumerate(answers.requests):

            def tell(output: Output, place: int = place) -> None:
                answers.tell((place, output))
                if not answers.left:
                    self._open.discard(answers)

            answers.numbers.append(self.engine.add(request, tell))

    def _cancel(self, answers: Answers) -> None:
        for number in answers.numbers:
            self.engine.cancel(number)
