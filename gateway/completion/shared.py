"""An answer out of a flight that something else makes, for the one it was begun for and for all who joined."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from gateway.cache.entry import Entry
from gateway.completion import assembly
from gateway.completion.anew import rest
from gateway.completion.answer import Answer
from gateway.completion.cached import CachedAnswer, chunks_of, framed
from gateway.completion.caching import MISS, Lookup
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.frames import from_flight, from_later
from gateway.completion.metering import Bill
from gateway.errors import StreamInterrupted
from gateway.upstream.relay import Client
from gateway.upstream.usage import Usage

_SHARED = ((b"x-llmgw-cache", b"shared"),)


class Asked:
    """One request.

    Attributes:
        generate: begins the answer anew.
        bill: whoever does not begin it tells it what was saved, or cancels it.
    """

    __slots__ = ("bill", "generate", "lookup")

    def __init__(self, lookup: Lookup, generate: Callable[[], Awaitable[Answer]], bill: Bill) -> None:
        self.lookup = lookup
        self.generate = generate
        self.bill = bill


class SharedAnswer(Answer):
    """
    Args:
        leads: it is this request that the flight was begun for, and that pays for it.
        leave: tells that this request does not want the flight any more.
        again: the same answer from elsewhere, when the flight is lost.
    """

    def __init__(
        self,
        flight: Flight,
        asked: Asked,
        *,
        leads: bool,
        leave: Callable[[Flight], None],
        again: Callable[[Asked, Flight], Awaitable[Answer]],
    ) -> None:
        self._call = asked.lookup.call
        headers = (*flight.headers, MISS) if leads else _SHARED
        super().__init__(stream=self._call.stream, headers=headers, waited_s=flight.waited_s)
        self._flight = flight
        self._asked = asked
        self._leads = leads
        self._leave = leave
        self._again = again
        self._other: Answer | None = None
        self._closed = False
        if not leads:
            asked.lookup.note("shared")

    async def body(self) -> bytes:
        if self._leads:
            return (await self._flight.read(0))[1]
        return await (await self._all()).body()

    def frames(self) -> AsyncGenerator[bytes]:
        if self._flight.stream:
            return from_flight(self._flight, self._wanted, self._elsewhere)
        return from_later(self._in_events)

    async def relay(self, client: Client) -> None:
        async for frames in self.frames():
            if not client.write(frames) and client.full is not None:
                await asyncio.shield(client.full)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._leave(self._flight)
        if self._other is not None:
            await self._other.aclose()
        elif not self._leads:
            self._asked.bill.saved(self._usage())

    async def _elsewhere(self, lost: FlightLost) -> AsyncGenerator[bytes]:
        """What is left of a stream whose flight is lost; who leads has nowhere else to go."""
        if self._leads:
            raise _stopped() from lost
        said = self._wanted(self._flight.since(0))
        self._other = await self._again(self._asked, self._flight)
        return rest(self._other.frames(), said)

    async def _in_events(self) -> AsyncGenerator[bytes]:
        """A whole answer, for who asked for a stream."""
        return (await self._all()).frames()

    async def _all(self) -> Answer:
        """What nothing was told of yet: all of the flight, or where that is lost, the answer from elsewhere."""
        try:
            return await self._kept()
        except FlightLost:
            self._other = await self._again(self._asked, self._flight)
            return self._other

    async def _kept(self) -> CachedAnswer:
        """All of the flight, as the cache would have it."""
        at, parts = 0, []
        while (read := await self._flight.read(at))[1]:
            at, data = read
            parts.append((0, data))
        flight = self._flight
        whole = b"" if flight.stream else b"".join(data for _, data in parts)
        entry = Entry(int(time.time()), flight.usage, parts if flight.stream else [], whole)
        return CachedAnswer(entry, self._call, paced=False)

    def _wanted(self, data: bytes) -> bytes:
        """The same without the usage, for who did not ask for it."""
        if self._call.wants_usage == self._flight.usage:
            return data
        return framed(assembly.without_usage(chunks_of([data])))

    def _usage(self) -> Usage:
        told = Usage.find(self._flight.last) or Usage()
        return Usage(cached=told.prompt + told.completion)


def _stopped() -> StreamInterrupted:
    return StreamInterrupted("The gateway stopped before the answer was complete. Please try again.")
