"""One answer being received: the reader's side of an HTTP/1.1 exchange."""

import asyncio
from typing import Protocol

from gateway.errors import GatewayError
from gateway.upstream.client import Sink, UpstreamResponse

HIGH_WATER_BYTES = 256 * 1024


class Source(Protocol):
    """The connection an answer arrives on."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def release(self, exchange: "Exchange") -> None: ...


class Exchange(UpstreamResponse):
    """The answer on one connection. At most HIGH_WATER_BYTES and one read of it are held.

    Attributes:
        started: status and headers are there.
    """

    __slots__ = (
        "_chunks", "_complete", "_error", "_loop", "_paused", "_sink", "_sink_done", "_sink_error", "_size", "_source",
        "_waiter", "headers", "started", "status",
    )  # fmt: skip

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers = {}
        self.started = False
        self._complete = False
        self._source = source
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False  # for the sink's sake
        self._sink: Sink | None = None
        self._sink_error: Exception | None = None
        self._sink_done = False

    @property
    def complete(self) -> bool:
        return self._complete

    async def read(self) -> bytes:
        while not self._chunks and not self._complete:
            await self.change()
        return self._take()

    async def body(self, max_bytes: int) -> bytes:
        if self._complete and self._size <= max_bytes:
            return self._take()
        return await super().body(max_bytes)

    async def relay(self, sink: Sink) -> None:
        """As UpstreamResponse.relay; hands on within the read from the socket, without a turn of the event loop."""
        self._sink, self._sink_done = sink, sink.done
        try:
            if self._chunks and not self._sink_done:
                self._hand_on(sink, self._take())
            while not (self._sink_done or self._complete):
                if sink.full is not None:
                    await asyncio.shield(sink.full)
                elif self._paused:  # it may have been full for less than a turn of the loop
                    self._go_on()
                else:
                    await self.change()
            if self._sink_error is not None:
                raise self._sink_error
        finally:
            self._sink, self._sink_done = None, False
            if self._paused and not self._complete:  # what is left is for its reader
                self._go_on()

    def change(self) -> "asyncio.Future[None]":
        """Done when there is something new; raises what the answer failed with."""
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def close(self) -> None:
        self._source.release(self)

    # The connection's side

    def feed(self, data: bytes) -> None:
        """What one read from the socket had of the body."""
        if self._sink is None or self._sink_done:
            self._hold(data)
        else:
            self._hand_on(self._sink, data)

    def end(self) -> None:
        self._complete = True
        if self._waiter is not None:
            self.wake()

    def fail(self, error: GatewayError) -> None:
        """The answer will not be complete. What has arrived of it can still be read."""
        if not self._complete and self._error is None:
            self._error = error
            self.wake()

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _hold(self, data: bytes) -> None:
        self._chunks.append(data)
        before, self._size = self._size, self._size + len(data)
        if before < HIGH_WATER_BYTES <= self._size:
            self._source.pause()
        if self._waiter is not None:
            self.wake()

    def _hand_on(self, sink: Sink, data: bytes) -> None:
        try:
            if sink.write(data):
                return
        except Exception as error:  # noqa: BLE001  # relay raises it: this is the socket's callback
            self._sink_error, self._sink_done = error, True
        else:
            self._sink_done = sink.done
        if sink.full is not None and not self._complete:
            self._paused = True
            self._source.pause()
        self.wake()

    def _go_on(self) -> None:
        self._paused = False
        self._source.resume()

    def _take(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._size >= HIGH_WATER_BYTES:
            self._source.resume()
        self._size = 0
        return data
