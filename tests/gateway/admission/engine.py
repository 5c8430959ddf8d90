"""An engine whose time is counted in ticks: so many requests at once, the others in a queue of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.gateway.raw_server import Script, raw_server, sized
from tests.polling import eventually

ANSWER = b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'


class Engine:
    """
    Args:
        capacity: requests it works on at once.
        ticks: how many each of them takes.
        room: requests that may be there at once; one more is refused with a 429, and counted.

    Attributes:
        arrived: the requests that have come, as bytes.
        busy: places that were taken at each tick.
    """

    def __init__(self, capacity: int, ticks: int = 1, room: int = 1_000_000) -> None:
        self.url = ""
        self.arrived: list[bytes] = []
        self.busy: list[int] = []
        self.refused = 0
        self.served = 0
        self.ticked = asyncio.Event()
        self._capacity = capacity
        self._ticks = ticks
        self._room = room
        self._open: dict[asyncio.Future[None], int] = {}  # in the order they came: ticks that are left

    @property
    def open(self) -> int:
        """Requests that are here, worked on or not."""
        return len(self._open)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.open >= self._room:
            self.refused += 1
            writer.write(sized(b'{"error":{"message":"too many"}}', "429 Too Many Requests"))
            return
        done = asyncio.get_running_loop().create_future()
        self._open[done] = self._ticks
        left = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([done, left], return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise ConnectionError  # its client is gone
            writer.write(sized(ANSWER))
            self.served += 1
        finally:
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
            self._open.pop(done, None)

    def tick(self) -> None:
        working = list(self._open)[: self._capacity]
        self.busy.append(len(working))
        for done in working:
            self._open[done] -= 1
            if not self._open[done]:
                del self._open[done]
                done.set_result(None)
        self.ticked.set()
        self.ticked = asyncio.Event()

    async def full(self) -> bool:
        """Waits until all places are taken; returns False when some stay empty."""
        with suppress(AssertionError):
            await eventually(lambda: self.open >= self._capacity, within=3)
            return True
        return False


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    script: Script = engine.answer
    async with raw_server(script) as server:
        engine.url, engine.arrived = server.url, server.requests
        yield engine
