"""Clients that leave when they should not: in mid-stream, before the answer, in the middle of their request."""

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET

from benchmarks.gateway.dialect import LATE, PACED
from benchmarks.gateway.server import Server, raw_request


def _request(server: Server, kind: str) -> bytes:
    """Every other one has a seed of its own: a cache, where there is one, has a part in it and does not know it."""
    return raw_request(server, kind, more=random.choice([None, {"seed": random.getrandbits(31)}]))


async def _in_mid_stream(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_request(server, PACED))
    for _ in range(random.randint(1, 40)):
        await reader.readline()


async def _before_the_answer(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_request(server, LATE))
    await writer.drain()
    await asyncio.sleep(random.uniform(0, 0.5))


async def _in_the_request(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = _request(server, PACED)
    writer.write(request[: random.randint(1, len(request) - 1)])
    await writer.drain()
    await asyncio.sleep(random.uniform(0, 0.2))


Leave = Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_WAYS: dict[str, Leave] = {
    "in mid-stream": _in_mid_stream,
    "before the answer": _before_the_answer,
    "in the request": _in_the_request,
}


async def _leave(server: Server, way: Leave) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        await way(server, reader, writer)
    finally:
        if random.random() < 0.5:  # a reset instead of an orderly end
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def keep_leaving(server: Server, per_second: float, counts: Counter[str]) -> None:
    """Until cancelled: `per_second` clients, each of which leaves in one of the ways."""
    async with asyncio.TaskGroup() as group:
        while True:
            name = random.choice(list(_WAYS))
            counts[name] += 1
            group.create_task(_quietly(server, _WAYS[name]))
            await asyncio.sleep(random.expovariate(per_second))


async def _quietly(server: Server, way: Leave) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        await _leave(server, way)
