"""An upstream that says exactly what a test tells it to, byte by byte, on a real socket."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """Where it listens, and what it has seen.

    Attributes:
        connections: how many there have been.
        open: how many of them no side has closed yet.
        cut: set when a client has closed a connection.
    """

    port: int = 0
    scheme: str = "http"
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def refuse(self) -> None:
        """Takes no more connections."""
        assert self.listener is not None
        self.listener.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(sum(lengths))


@asynccontextmanager
async def raw_server(*answers: bytes | Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Answers the n-th request of the server's life with the n-th answer (the last one again after that).

    Bytes are written as they are and the connection stays open; a script does what it likes with it, and raises
    ConnectionError to close it.
    """
    server = RawServer(scheme="https" if tls else "http")
    open_connections: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.open += 1
        open_connections[asyncio.current_task()] = writer
        try:
            while True:
                server.requests.append(await read_request(reader))
                answer = answers[min(len(server.requests), len(answers)) - 1]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            server.cut.set()
        finally:
            server.open -= 1
            writer.close()

    server.listener = listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in open_connections.values():
            with suppress(AttributeError):  # Debian's Python 3.11.2 cannot abort a TLS connection that is over
                writer.transport.abort()
        await asyncio.gather(*filter(None, open_connections), return_exceptions=True)


def then_close(answer: bytes, reset: bool = False) -> Script:
    """Writes the bytes and ends the connection behind them: with a FIN, or with a reset."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if reset:
            await asyncio.sleep(0.05)  # a reset overtakes what the client has not read yet
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        raise ConnectionError

    return script


def in_pieces(*pieces: bytes) -> Script:
    """Writes piece by piece; the client's side of the loop gets a turn after each."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return script


def sized(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def token(text: str, finish: str | None = None, index: int = 0) -> bytes:
    reason = f'"{finish}"' if finish else "null"
    return event(
        f'{{"choices":[{{"index":{index},"delta":{{"content":"{text}"}},"finish_reason":{reason}}}]}}'.encode()
    )


DONE = event(b"[DONE]")
