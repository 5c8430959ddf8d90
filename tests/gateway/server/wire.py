"""Raw HTTP/1.1 through a socket, and small ASGI applications behind the real server."""

import asyncio
import functools
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.errors import ErrorResponses
from gateway.server.bounds import Bounds
from gateway.server.connection import ClientConnection
from tests.gateway.doors import Server

PATIENCE_S = 10  # how long a test waits for what has to come
A_WHILE_S = 0.05  # how long it waits for what must not
GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
FAREWELL = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"

Headers = Iterable[tuple[bytes, bytes]]


@dataclass
class Response:
    version: str
    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def json(self):
        return json.loads(self.body)


class Client:
    """One connection to the server, and what comes over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Each piece reaches the server on its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def head(self) -> Response:
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        version, status, _ = lines[0].split(" ", 2)
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        return Response(version, int(status), fields)

    async def response(self, bodiless: bool = False) -> Response:
        response = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            if bodiless:
                pass
            elif response.all("transfer-encoding"):
                assert response.all("transfer-encoding") == ["chunked"]
                while chunk := await self.chunk():
                    response.body += chunk
            elif response.all("content-length"):
                response.body = await self.reader.readexactly(int(response.all("content-length")[0]))
            else:
                response.body = await self.reader.read()
        return response

    async def chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            size = int((await self.reader.readuntil(b"\r\n")), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def ask(self, request: bytes = GET) -> Response:
        await self.send(request)
        return await self.response()

    async def rest(self) -> bytes:
        """All that comes until the server closes; being reset is being closed."""
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while piece := await self.reader.read(65536):
                    data += piece
            except ConnectionError:
                pass
        return data

    async def silent(self) -> bool:
        """Whether nothing comes for a while, and the connection stays open."""
        try:
            async with asyncio.timeout(A_WHILE_S):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        except asyncio.IncompleteReadError:
            pass
        return False

    def leave(self) -> None:
        self.writer.transport.abort()


@dataclass
class Served:
    server: uvicorn.Server
    port: int

    @property
    def connections(self) -> list[ClientConnection]:
        return list(self.server.server_state.connections)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def client(self, receive_buffer: int | None = None) -> AsyncIterator[Client]:
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        client = Client(*await asyncio.open_connection(sock=connection))
        try:
            yield client
        finally:
            client.leave()

    async def serves(self) -> bool:
        """Whether the next client gets an answer."""
        async with self.client() as client:
            return (await client.ask(FAREWELL)).status == 200


@asynccontextmanager
async def serving(app: ASGIApp, graceful_s: int = 5, **bounds) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    protocol = functools.partial(ClientConnection, Bounds(**bounds))
    server = Server(
        uvicorn.Config(
            app,
            interface="asgi3",
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=graceful_s,
        )
    )
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield Served(server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task


async def read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        body += message["body"]
        if not message["more_body"]:
            return body


async def start(send: Send, status: int = 200, headers: Headers = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def write(send: Send, body: bytes = b"", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def reply(send: Send, body: bytes = b"ok", status: int = 200, headers: Headers = ()) -> None:
    await start(send, status, [(b"content-length", b"%d" % len(body)), *headers])
    await write(send, body)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path, and reads nothing."""
    await reply(send, scope["path"].encode())


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the request as it arrived."""
    body = await read(receive)
    request = {
        "method": scope["method"],
        "version": scope["http_version"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "size": len(body),
        "sha": hashlib.sha256(body).hexdigest(),
        "body": body[:100].decode("latin-1"),
    }
    await reply(send, json.dumps(request).encode())


typed_seen = ErrorResponses(seen)


def post(body: bytes, *fields: bytes, target: bytes = b"/") -> bytes:
    lines = [b"POST " + target + b" HTTP/1.1", b"host: h", *fields, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked_head(*fields: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", b"host: h", *fields, b"transfer-encoding: chunked"]) + b"\r\n\r\n"


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def assert_error(response: Response, status: int, code: str) -> None:
    assert response.status == status
    assert response.all("content-type") == ["application/json"]
    error = response.json()["error"]
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
