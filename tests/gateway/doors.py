"""The doors on a scripted path, behind the gateway's own layers, on a real port."""

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from gateway.keys.ring import KeyRing
from gateway.metrics import Metrics
from gateway.middleware.auth import Authentication
from gateway.middleware.errors import ErrorResponses
from gateway.middleware.request_id import RequestId
from gateway.routes.framework_errors import translate_framework_errors
from gateway.routes.front import Gateway
from gateway.server.bounds import Bounds
from gateway.server.connection import ClientConnection


def app(*routers: APIRouter) -> FastAPI:
    layers = [
        Middleware(RequestId),
        Middleware(ErrorResponses),
        Middleware(Authentication, KeyRing((), None, b"", Metrics()), insecure=True, loopback=True),
    ]
    application = Gateway(layers, raw={})
    translate_framework_errors(application)
    for router in routers:
        application.include_router(router)
    return application


class Server(uvicorn.Server):
    """uvicorn's, without the waits of tenths of seconds where there is nothing to wait for: tests start hundreds."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for _ in range(10):
            if not (self.server_state.connections or self.server_state.tasks):
                break
            await asyncio.sleep(0.005)
        else:
            await super().shutdown(sockets)
            return
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        await self.lifespan.shutdown()


@asynccontextmanager
async def served(
    application: FastAPI, bounds: Bounds | None = None, *, lifespan: Literal["on", "off"] = "off"
) -> AsyncIterator[str]:
    """Yields the base URL of a running server; with `lifespan` it follows its directory too."""
    listener = socket.create_server(("127.0.0.1", 0))
    protocol = functools.partial(ClientConnection, bounds or Bounds())
    server = Server(
        uvicorn.Config(
            application,
            interface="asgi3",
            http=protocol,
            ws="none",
            lifespan=lifespan,
            log_level="error",
            timeout_graceful_shutdown=2,
        )
    )
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def raw_post(url: str, path: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a request and leaves the connection open, for clients that go away."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


def sse(text: str) -> Sequence[tuple[str, str]]:
    """(event, data) of every event in a stream; checks the separators on the way."""
    assert text.endswith("\r\n\r\n")
    assert "\n" not in text.replace("\r\n", "")
    events = []
    for block in text.split("\r\n\r\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\r\n"))
        events.append((fields["event"], fields.get("data", "")))
    return events
