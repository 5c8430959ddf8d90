"""Links to a real Redis, and to servers that only pretend to be one."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from tests.polling import eventually


async def answers(link: RedisLink) -> bool:
    try:
        return await link.call("PING") == b"PONG"
    except RedisUnavailable:
        return False


async def is_up(redis: Redis) -> bool:
    """A server's socket is there a moment before it listens."""
    try:
        return bool(await redis.ping())
    except RedisConnectionError:
        return False


@asynccontextmanager
async def running(link: RedisLink) -> AsyncIterator[asyncio.Task[None]]:
    """The link's task, for as long as the block lasts."""
    task = asyncio.create_task(link.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[RedisLink]:
    """A link that is connected."""
    link = RedisLink(url)
    async with running(link):
        await eventually(lambda: answers(link))
        yield link


@contextmanager
def stopped(pid: int) -> Iterator[Callable[[], None]]:
    """The process stands still, until the block ends or what it yields is called."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        with suppress(ProcessLookupError):  # the test has killed it
            os.kill(pid, signal.SIGCONT)


async def pid_of(redis: Redis) -> int:
    return int((await redis.info("server"))["process_id"])


@dataclass
class FakeRedis:
    """What it has been sent.

    Attributes:
        connections: how many there have been.
        open: how many of them no side has closed yet.
    """

    port: int = 0
    commands: list[list[bytes]] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


# The bytes of a reply; None is silence, and ConnectionError closes the connection.
Answer = Callable[[list[bytes]], bytes | None]


@asynccontextmanager
async def fake_redis(answer: Answer, pieces: int = 1 << 16) -> AsyncIterator[FakeRedis]:
    """Says what `answer` returns for each command, in writes of `pieces` bytes."""
    server = FakeRedis()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.open += 1
        parser = hiredis.Reader()
        try:
            while data := await reader.read(1 << 16):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    server.commands.append(command)
                    reply = answer(command) or b""
                    for start in range(0, len(reply), pieces):
                        writer.write(reply[start : start + pieces])
                        await writer.drain()
                        await asyncio.sleep(0)
        except ConnectionError:
            pass
        except hiredis.ProtocolError:  # not for us, a TLS handshake for example
            await reader.read()
        finally:
            server.open -= 1
            writer.close()

    async with _listening(serve) as server.port:
        yield server


def polite(command: list[bytes]) -> bytes:
    return b"+PONG\r\n" if command == [b"PING"] else b"+OK\r\n"


@asynccontextmanager
async def tls_in_front(path: str, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a TLS server in front of the unix socket `path`: the packaged Redis is built without TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        pumps = asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer), return_exceptions=True)
        try:
            await pumps
        finally:
            pumps.cancel()

    async with _listening(serve, tls) as port:
        yield port


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def _listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[object]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)  # type: ignore[misc]
        except asyncio.CancelledError:
            writer.transport.abort()

    listener = await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
