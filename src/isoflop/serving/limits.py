"""Guards the door of a server: keys, large and slow bodies, slow readers; not what they say."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from isoflop.serving.refusals import Refusal
from isoflop.serving.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOST_DEPTH = 64
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_OPEN_PATHS = frozenset({"/", "/health"})


class Door:
    """ASGI middleware that lets a request in only whole, small enough and with the key.

    Args:
        note: Called with the status of every reply.
    """

    def __init__(self, app: App, settings: Settings, note: Callable[[int], None]) -> None:
        self._app, self._settings, self._note = app, settings, note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def noted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._note(message["status"])
            # Waits while the client has not taken what was sent before.
            async with asyncio.timeout(self._settings.reply_seconds):
                await send(message)

        try:
            self._check_key(scope)
            body = await self._body(scope, receive)
        except Refusal as refusal:
            await refusal.response()(scope, receive, noted)
            return
        if body is None:  # the client left before it had said all
            return
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> MutableMapping[str, Any]:
            return pending.pop() if pending else await receive()

        # What the server writes no more, uvicorn ends with the connection.
        with suppress(TimeoutError):
            await self._app(scope, replay, noted)

    def _check_key(self, scope: Scope) -> None:
        key = self._settings.api_key
        if key is None or scope["path"] in _OPEN_PATHS:
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + key.encode()):
            raise Refusal(401, "A valid API key is needed", code="invalid_api_key")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        most = self._settings.most_body_bytes
        too_large = Refusal(413, f"The body is larger than {most} bytes", code="body_too_large")
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refusal(408, "The body did not come in time", code="body_timeout") from None
        body = b"".join(parts)
        if _depth(body) > _MOST_DEPTH:
            raise Refusal(400, f"The body is nested more than {_MOST_DEPTH} deep")
        if _has_half_pair(body):
            raise Refusal(400, "The body holds half of a surrogate pair, which is no text")
        return body


def _has_half_pair(body: bytes) -> bool:
    """Whether a JSON text escapes a surrogate without its other half."""
    if not re.search(rb"\\u[dD]", body):
        return False
    high_end: int | None = None
    for match in _ESCAPE.finditer(body):
        code = int(match[1], 16) if match[1] else 0
        is_low = 0xDC00 <= code <= 0xDFFF
        if is_low != (high_end == match.start()):
            return True
        if high_end is not None and not is_low:
            return True
        high_end = match.end() if 0xD800 <= code <= 0xDBFF else None
    return high_end is not None


def _depth(body: bytes) -> int:
    """How deep a JSON text is nested: parsers call themselves for each level."""
    if body.count(b"[") + body.count(b"{") <= _MOST_DEPTH:
        return 0
    deepest = depth = 0
    for match in re.finditer(rb"[\[\]{}]", _JSON_TEXT.sub(b"", body)):
        depth += 1 if match.group() in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
