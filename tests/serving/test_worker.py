"""Answers of the engine's thread, for a reader that comes late."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from isoflop.serving.request import Output, Request
from isoflop.serving.worker import Answers


def test_answers_that_ended_before_they_are_read_are_not_lost() -> None:
    async def read() -> list[tuple[int, Output]]:
        worker = cast(Any, SimpleNamespace(alive=True))
        answers = Answers(worker, [Request((1,), 4), Request((2,), 4)])
        news = [(0, Output(0, "a", finish="stop")), (1, Output(0, "b", finish="length"))]
        for one in news:
            answers.tell(one)  # as the engine does, ahead of the reader
        assert answers.left == 0
        found = [one async for one in answers]
        assert found == news
        return found

    assert len(asyncio.run(asyncio.wait_for(read(), 10))) == 2
