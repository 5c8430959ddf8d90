"""An OpenAI-speaking server that says, byte for byte, what a test tells it to say: for faults no real engine makes on
demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODELS = {"object": "list", "data": [{"id": "scripted", "object": "model", "tasks": ["chat"]}]}


@dataclass(slots=True)
class Request:
    path: str
    headers: dict[str, str]
    body: Any


Script = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int, body: Any) -> Script:
    """A whole JSON answer."""
    payload = json.dumps(body).encode()

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % status)
        writer.write(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(payload) + payload)

    return script


def refuse(status: int, message: str) -> Script:
    return reply(status, {"error": {"message": message, "type": "some_error", "param": None, "code": None}})


def stream(*events: str | dict[str, Any]) -> Script:
    """Server-sent events, after which the connection ends.

    A string is a piece of the answer, a dict is an event as it stands.
    """

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for event in events:
            writer.write(b"data: " + json.dumps(piece(event) if isinstance(event, str) else event).encode() + b"\n\n")
        await writer.drain()

    return script


async def silence(request: Request, writer: asyncio.StreamWriter) -> None:
    """No status, no byte: as a gateway does before the first token."""
    await asyncio.Event().wait()


def piece(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice]}


def error_event(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "upstream_error", "param": None, "code": "stream_interrupted"}}


@dataclass(slots=True)
class Upstream:
    """`models` and `chat` are what it says next; `requests` is what it was asked; `gone` counts clients that left."""

    url: str = ""
    models: Script = field(default_factory=lambda: reply(200, MODELS))
    chat: Script = field(default_factory=lambda: stream("Hello", piece("", "stop")))
    requests: list[Request] = field(default_factory=list)
    gone: int = 0

    def reset(self) -> None:
        fresh = Upstream()
        self.models, self.chat, self.requests, self.gone = fresh.models, fresh.chat, fresh.requests, fresh.gone

    def demand_key(self, key: str) -> None:
        """Refuse every request without this key from now on."""
        self.models, self.chat = (self._with_key(key, script) for script in (self.models, self.chat))

    @staticmethod
    def _with_key(key: str, script: Script) -> Script:
        async def checked(request: Request, writer: asyncio.StreamWriter) -> None:
            known = request.headers.get("authorization") == f"Bearer {key}"
            await (script if known else refuse(401, "Give me a key."))(request, writer)

        return checked

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        length = int(headers.get("content-length", 0))
        body = json.loads(await reader.readexactly(length)) if length else None
        request = Request(head[0].split()[1], headers, body)
        self.requests.append(request)
        script = self.models if request.path.endswith("/models") else self.chat
        answering = asyncio.ensure_future(script(request, writer))
        leaving = asyncio.ensure_future(reader.read())
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        self.gone += not answering.done()
        answering.cancel()
        leaving.cancel()
        writer.close()


@asynccontextmanager
async def scripted_upstream(port: int = 0) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", port)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
