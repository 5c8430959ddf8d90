"""The OpenAI door: `/v1/*`. The completion endpoints are raw ASGI; bytes in, bytes out.

Source: https://platform.openai.com/docs/api-reference
"""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.routing import Route

from gateway.completion.answer import Answer
from gateway.completion.call import CompletionPath
from gateway.completion.catalog import Catalog, ModelInfo
from gateway.completion.request import Call, Endpoint
from gateway.context import current
from gateway.errors import GatewayError, StreamInterrupted
from gateway.middleware.asgi import Receive, Scope, Send, respond
from gateway.upstream.sse import DONE

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # asks a proxy in front not to collect tokens
]


class CompletionEndpoint:
    """One of the completion endpoints, as an ASGI application."""

    def __init__(self, endpoint: Endpoint, path: CompletionPath) -> None:
        self._endpoint = endpoint
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call.parse(self._endpoint, await _body(receive))
        answer = await self._path.send(call, current.get())
        try:
            if answer.stream:
                await _stream(answer, send)
            else:
                await respond(send, 200, await answer.body())
        finally:
            await answer.aclose()


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _stream(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
    try:
        async for frames in answer.frames():
            await send({"type": "http.response.body", "body": frames, "more_body": True})
        last = DONE
    except GatewayError as error:
        last = error.event()
    except asyncio.CancelledError:  # the client has left, and hears nothing; or this worker stops, and it does
        cut = StreamInterrupted("The gateway stopped before the answer was complete. Please try again.")
        await send({"type": "http.response.body", "body": cut.event()})
        raise
    await send({"type": "http.response.body", "body": last})


def _entry(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "llmgw",
        "tasks": sorted(model.tasks),
        "max_model_len": model.max_model_len,
    }


def router(path: CompletionPath, catalog: Catalog) -> APIRouter:
    routes = APIRouter(tags=["openai"])
    for endpoint in Endpoint:
        routes.routes.append(Route(endpoint, CompletionEndpoint(endpoint, path), methods=["POST"]))

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The models this key may use that have a replica now."""
        return {"object": "list", "data": [_entry(model) for model in catalog.models(current.get())]}

    @routes.get("/v1/models/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        """One model; `tasks` and `max_model_len` are this gateway's additions to OpenAI's fields."""
        return _entry(catalog.model(model, current.get()))

    return routes
