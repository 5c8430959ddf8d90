"""The OpenAI protocol over llama.cpp's slots: the routes of one engine server, and its key.

A client that goes away cancels its handler, and with it what runs for it, streamed or not, wherever it stands. For the
same reason an answer that is not streamed is put together here from a stream (`_whole_answer.py`).
"""

import hmac
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import web

from backend.engines._llamacpp_slots import Json, Rejected, Slots
from backend.engines._whole_answer import whole

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BODY_BYTES = 64 * 2**20
# Of each token; the whole vocabulary for each of a thousand tokens would be gigabytes.
MAX_LOGPROBS = 20
# llama.cpp looks through the whole vocabulary for each, some 20 ms, in which nobody else is served.
MAX_BREAKERS = 32
METRICS_TYPE = "text/plain; version=0.0.4"


def application(model: str, max_model_len: int, key: str, slots: Slots, *, embeddings: bool) -> web.Application:
    app = web.Application(middlewares=[_errors, _authorized(key)], client_max_size=BODY_BYTES)
    app.on_cleanup.append(lambda _: slots.close())
    app.router.add_get("/health", _health(slots))
    app.router.add_get("/metrics", _metrics(slots))
    app.router.add_get("/v1/models", _models(model, max_model_len))
    if embeddings:
        app.router.add_post("/v1/embeddings", _embeddings(slots))
    else:
        app.router.add_post("/v1/chat/completions", _generation(slots.chat))
        app.router.add_post("/v1/completions", _generation(slots.completions))
    return app


def _authorized(key: str) -> Any:
    expected = f"Bearer {key}".encode()

    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if request.path == "/health" or hmac.compare_digest(given, expected):
            return await handler(request)
        raise Rejected(401, "invalid API key", "authentication_error", "invalid_api_key")

    return authorized


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Rejected as rejected:
        return web.json_response(rejected.body, status=rejected.status)
    except web.HTTPClientError as error:
        return web.json_response(Rejected(error.status, error.reason).body, status=error.status)


def _health(slots: Slots) -> Handler:
    async def health(_request: web.Request) -> web.StreamResponse:
        stalled = slots.stalled()
        return web.json_response({"status": "stalled" if stalled else "ok"}, status=503 if stalled else 200)

    return health


def _metrics(slots: Slots) -> Handler:
    async def metrics(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=await slots.metrics(), headers={"Content-Type": METRICS_TYPE})

    return metrics


def _models(model: str, max_model_len: int) -> Handler:
    card = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "llamacpp"}

    async def models(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [card | {"max_model_len": max_model_len}]})

    return models


def _embeddings(slots: Slots) -> Handler:
    async def embeddings(request: web.Request) -> web.StreamResponse:
        return web.json_response(await slots.embeddings(await _body(request)))

    return embeddings


def _generation(run: Callable[[Json], AsyncGenerator[Json, None]]) -> Handler:
    async def generation(request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if body.get("stream"):
            async with aclosing(run(body)) as events:
                return await _stream(request, events)
        async with aclosing(run(body | {"stream_options": {"include_usage": True}})) as events:
            return web.json_response(whole([event async for event in events]))

    return generation


async def _stream(request: web.Request, events: AsyncGenerator[Json, None]) -> web.StreamResponse:
    """Server-sent events; the status is sent with the first one, so that a request that is refused gets its own."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    try:
        async for event in events:
            if not response.prepared:
                await response.prepare(request)
            await response.write(_sse(event))
    except Rejected as rejected:
        if not response.prepared:
            raise
        await response.write(_sse(rejected.body))
    else:
        await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _sse(event: Json) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _body(request: web.Request) -> Json:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise Rejected(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Rejected(400, "the body must be a JSON object")
    for name in ("logprobs", "top_logprobs", "n_probs"):
        # A float too: llama.cpp takes it as a whole number.
        if isinstance(body.get(name), int | float) and body[name] > MAX_LOGPROBS:
            raise Rejected(400, f"{name} must be at most {MAX_LOGPROBS}")
    breakers = body.get("dry_sequence_breakers")
    if isinstance(breakers, list) and len(breakers) > MAX_BREAKERS:
        raise Rejected(400, f"dry_sequence_breakers must be at most {MAX_BREAKERS}")
    return body
