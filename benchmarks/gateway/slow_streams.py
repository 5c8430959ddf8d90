"""A thousand open streams that hardly move: what one of them costs in memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.gateway import load
from benchmarks.gateway.dialect import SLOW, STREAM, WHOLE
from benchmarks.gateway.load import Load
from benchmarks.gateway.server import Server, raw_request

_AT_ONCE = 20
_TIMEOUT_S = 90.0
_SETTLE_S = 3.0


async def _open(server: Server, turn: asyncio.Semaphore, writers: list[asyncio.StreamWriter]) -> bool:
    """One stream, open from its first event on."""
    async with turn:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writers.append(writer)
            writer.write(raw_request(server, SLOW))
            while b"data:" not in (line := await reader.readline()):
                if not line or (line.startswith(b"HTTP/1.1") and b" 200 " not in line):
                    return False
        except OSError:
            return False
    asyncio.create_task(_drain(reader))  # noqa: RUF006 - it ends with its connection
    return True


async def _drain(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65536):
            pass
    except OSError:
        pass


@asynccontextmanager
async def open_streams(server: Server, count: int) -> AsyncIterator[int]:
    """Opens them, a few at a time, and yields how many are open."""
    writers: list[asyncio.StreamWriter] = []
    turn = asyncio.Semaphore(_AT_ONCE)
    tasks = [asyncio.create_task(_open(server, turn, writers)) for _ in range(count)]
    done, late = await asyncio.wait(tasks, timeout=_TIMEOUT_S)
    for task in late:
        task.cancel()
    try:
        yield sum(task.result() for task in done)
    finally:
        for writer in writers:
            writer.transport.abort()


async def _with_streams(server: Server, count: int) -> tuple[int, dict[str, float]]:
    assert server.process is not None
    async with open_streams(server, count) as opened:
        await asyncio.sleep(_SETTLE_S)
        return opened, server.process.memory_mb()


def memory(server: Server, count: int) -> dict[str, Any]:
    """Idle after a warm-up, and with `count` open streams. Nothing else may share the process's pages meanwhile."""
    assert server.process is not None
    load.run(server, Load(WHOLE, 32, 3))
    load.run(server, Load(STREAM, 32, 2))
    time.sleep(_SETTLE_S)
    idle = server.process.memory_mb()
    opened, loaded = asyncio.run(_with_streams(server, count))
    per_stream = (loaded["pss"] - idle["pss"]) * 1024 / opened if opened else None
    return {"idle": idle, "loaded": loaded, "opened": opened, "kb_per_stream": per_stream}
