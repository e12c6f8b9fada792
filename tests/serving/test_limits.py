"""A client that does not take its reply is left, and the answer behind it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from starlette.responses import StreamingResponse

from isoflop.serving.limits import Door
from isoflop.serving.settings import Settings


def test_a_reader_that_takes_nothing_is_left_and_its_stream_ends() -> None:
    ended: list[bool] = []
    sent: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for _ in range(1000):
                yield b"data: x\n\n"
        finally:
            ended.append(True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(pieces())(scope, receive, send)

    async def receive() -> MutableMapping[str, Any]:
        if "asked" not in sent:
            sent.append("asked")
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])
        if len(sent) > 5:  # its buffers are full from here on
            await asyncio.Event().wait()

    async def visit() -> None:
        statuses: list[int] = []
        door = Door(app, Settings(reply_seconds=0.05), statuses.append)
        scope = {"type": "http", "path": "/v1/completions", "headers": [], "method": "POST"}
        await asyncio.wait_for(door(scope, receive, send), 30)
        assert statuses == [200]

    asyncio.run(visit())
    assert ended == [True]
    assert sent.count("http.response.body") < 10
