"""The routes of a server: OpenAI's API, vLLM's token routes, health, metrics, feedback, the page.

Not for what is behind them (`service.py`) nor for sockets (`server.py`).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from isoflop.core.artifact import read_json
from isoflop.serving import chat, completions, reading
from isoflop.serving.completions import gather
from isoflop.serving.limits import Door
from isoflop.serving.protocol import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    FeedbackBody,
    ModerationBody,
    TokenizeBody,
)
from isoflop.serving.reading import check_model
from isoflop.serving.refusals import Refusal, from_validation
from isoflop.serving.service import Service
from isoflop.serving.worker import Answers, EngineGone
from isoflop.version import __version__

T = TypeVar("T")
NOT_ENABLED = "not_enabled"
"""Why a route is not there: its operator has not switched it on."""
PAGE = Path(__file__).with_name("web") / "chat.html"


def build_app(service: Service) -> FastAPI:
    """The application of one service; it closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="Isoflop", version=__version__, lifespan=lifespan)
    app.add_middleware(Door, settings=service.settings, note=service.metrics.reply)
    _add_errors(app)
    _add_answers(app, service)
    _add_tokens(app, service)
    _add_rest(app, service)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return from_validation(list(error.errors())).response()

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return Refusal(error.status_code, str(error.detail)).response()

    @app.exception_handler(EngineGone)
    async def gone(_: Request, error: EngineGone) -> JSONResponse:
        return Refusal(503, str(error)).response()


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions")
    async def complete(body: CompletionBody, request: Request) -> Response:
        """Continue texts."""
        asked = reading.completion_requests(service, body)
        _refuse_unsafe(service, [service.vocabulary.decode(one.prompt) for one in asked])
        answers = reading.submit(service, asked)
        if body.stream:
            return _events(completions.stream(service, body, asked, answers))
        reply = completions.whole(service, body, asked, answers)
        return JSONResponse(await _unless_gone(request, answers, reply))

    @app.post("/v1/chat/completions")
    async def converse(body: ChatBody, request: Request) -> Response:
        """Answer a conversation."""
        _refuse_unsafe(service, [reading.plain_message(each)["content"] for each in body.messages])
        asked = reading.chat_request(service, body)
        answers = reading.submit(service, [asked])
        if body.stream:
            return _events(chat.stream(service, body, asked, answers))
        reply = chat.whole(service, body, asked, answers)
        return JSONResponse(await _unless_gone(request, answers, reply))

    @app.post("/v1/embeddings")
    async def embed(body: EmbeddingBody, request: Request) -> Response:
        """The mean of a text's final states, of length one."""
        asked = reading.embedding_requests(service, body)
        answers = reading.submit(service, asked)
        found = await _unless_gone(request, answers, gather(service, answers))
        vectors = [one.last.embedding or () for (one,) in found if one.last is not None]
        as_text = body.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _base64(vector) if as_text else list(vector),
            }
            for index, vector in enumerate(vectors)
        ]
        n_tokens = sum(len(one.prompt) for one in asked)
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return JSONResponse({"object": "list", "data": data, "model": service.name, "usage": usage})

    @app.post("/v1/moderations")
    async def moderate(body: ModerationBody) -> dict[str, Any]:
        """What the safety filter makes of texts."""
        if service.safety is None:
            raise Refusal(
                404,
                "This server filters nothing: it was started with --safety off",
                code=NOT_ENABLED,
            )
        texts = [body.input] if isinstance(body.input, str) else body.input
        results = [service.safety.moderation(text) for text in texts]
        return {"id": "modr-isoflop", "model": "isoflop-safety", "results": results}


def _add_tokens(app: FastAPI, service: Service) -> None:
    vocabulary = service.vocabulary

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        """The ids of a text, or of a conversation as the model reads it."""
        check_model(service, body.model)
        if (body.prompt is None) == (body.messages is None):
            raise Refusal(400, "give either prompt or messages", param="prompt")
        if body.messages is not None:
            text, ids = reading.rendered(service, body.messages)
        else:
            text = body.prompt or ""
            ids = vocabulary.encode(text, special=True)
        strings = [vocabulary.spelled(index) for index in ids] if body.return_token_strs else None
        return {
            "count": len(ids), "max_model_len": service.engine.max_seq_len, "tokens": ids,
            "token_strs": strings, "prompt": text,
        }  # fmt: skip

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, str]:
        """The text of ids."""
        check_model(service, body.model)
        if any(index >= service.engine.vocab_size for index in body.tokens):
            last = service.engine.vocab_size - 1
            raise Refusal(400, f"tokens holds ids beyond {last}", param="tokens")
        return {"prompt": vocabulary.decode(body.tokens)}

    @app.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        """The tokenizer's configuration and the chat template in use."""
        path = service.directory / "tokenizer_config.json"
        config = read_json(path) if path.exists() else {}
        return {**config, "chat_template": service.template.source}


def _add_rest(app: FastAPI, service: Service) -> None:
    one = {
        "id": service.name, "object": "model", "created": int(time.time()), "owned_by": "isoflop",
        "max_model_len": service.engine.max_seq_len, "sha256": service.sha256,
        "tools": service.template.knows_tools, "feedback": service.feedback is not None,
    }  # fmt: skip

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [one]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """The one model, by its name."""
        check_model(service, name)
        return one

    @app.get("/health")
    async def health() -> Response:
        """200 while answers can be expected."""
        if not service.worker.alive:
            return JSONResponse({"status": "the engine has ended"}, 503)
        said = {"status": "ok", "batch_invariant": service.engine.independent}
        return JSONResponse(said)

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/feedback")
    async def feedback(body: FeedbackBody) -> dict[str, Any]:
        """Keep what a person thinks of an answer."""
        if service.feedback is None:
            raise Refusal(
                404,
                "This server keeps no feedback: start it with --feedback FILE",
                code=NOT_ENABLED,
            )
        if body.rating is None and body.rejected is None and body.edited is None:
            raise Refusal(400, "give a rating, a rejected answer or an edit", param="rating")
        number = service.feedback.add(
            service.sha256, [reading.plain_message(each) for each in body.messages], body
        )
        return {"id": number}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html; charset=utf-8")


def _refuse_unsafe(service: Service, texts: list[str]) -> None:
    """Refuse what the filter blocks in prompts."""
    if service.safety is None:
        return
    for text in texts:
        categories = service.safety.refused(text)
        if categories:
            raise Refusal(
                400, f"The safety filter refuses this text: {', '.join(categories)}",
                code="content_filter",
            )  # fmt: skip


def _events(stream: AsyncIterator[bytes]) -> StreamingResponse:
    # No proxy may hold pieces back.
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _unless_gone(request: Request, answers: Answers, reply: Coroutine[Any, Any, T]) -> T:
    """The reply, unless the client leaves before: then nothing is computed any more."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work, watch = asyncio.create_task(reply), asyncio.create_task(gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refusal(499, "The client left")
        return work.result()
    finally:
        work.cancel()
        watch.cancel()
        answers.cancel()


def _base64(vector: tuple[float, ...]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
