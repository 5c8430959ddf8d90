"""A wire to Redis that a test makes slow, stops and cuts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

Open = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Proxy:
    """
    Attributes:
        delay_s: how long each piece takes, in both directions.
    """

    def __init__(self, target: Open) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._target = target
        self._moving = asyncio.Event()
        self._moving.set()
        self._whole = True
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def stall(self) -> None:
        """From now on nothing arrives, on old connections and new ones."""
        self._moving.clear()

    def go_on(self) -> None:
        self._moving.set()

    def cut(self) -> None:
        """Ends all connections, and every new one at once."""
        self._whole = False
        for task in self._tasks:
            task.cancel()

    def mend(self) -> None:
        self._whole = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            if self._whole:
                with suppress(OSError, asyncio.CancelledError):
                    there_reader, there = await self._target()
                    ends.append(there)
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._carry(reader, there))
                        both.create_task(self._carry(there_reader, writer))
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(due - loop.time())
                await self._moving.wait()
                writer.write(data)

        delivery = asyncio.create_task(deliver())
        try:
            with suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    pieces.put_nowait((loop.time() + self.delay_s, data))
        finally:
            delivery.cancel()
            writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxy(target: Open) -> AsyncIterator[Proxy]:
    wire = Proxy(target)
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = listener.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listener.close()
        await wire.close()
