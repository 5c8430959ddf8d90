"""One answer being received: the reader's side of an HTTP/1.1 exchange."""

import asyncio
from collections import deque
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

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers = {}
        self.started = False
        self._complete = False
        self._source = source
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._sink_error: Exception | None = None

    @property
    def complete(self) -> bool:
        return self._complete

    async def head(self) -> None:
        """Waits for status and headers."""
        while not self.started:
            await self._change()

    async def read(self) -> bytes:
        while not self._chunks and not self._complete:
            await self._change()
        return self._take()

    async def relay(self, sink: Sink) -> None:
        """As UpstreamResponse.relay; hands on within the read from the socket, without a turn of the event loop."""
        self._sink = sink
        try:
            self.flush()
            while self._sink_error is None and not (sink.done or self._complete):
                if sink.full is None:
                    await self._change()
                else:
                    await asyncio.shield(sink.full)
                    self._source.resume()
            if self._sink_error is not None:
                raise self._sink_error
        finally:
            self._sink = None

    def close(self) -> None:
        self._source.release(self)

    # The connection's side

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        before, self._size = self._size, self._size + len(data)
        if before < HIGH_WATER_BYTES <= self._size:
            self._source.pause()

    def flush(self) -> None:
        """All of one read from the socket was fed: goes on in one piece."""
        if self._chunks:
            if self._sink is None:
                self.wake()
            else:
                self._hand_on(self._sink)

    def end(self) -> None:
        self.flush()
        self._complete = True
        self.wake()

    def fail(self, error: GatewayError) -> None:
        """The answer will not be complete. What has arrived of it can still be read."""
        if not self._complete and self._error is None:
            self._error = error
            self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hand_on(self, sink: Sink) -> None:
        if sink.done or self._sink_error is not None:
            return
        try:
            sink.write(self._take())
        except Exception as error:  # noqa: BLE001  # relay raises it: this is the socket's callback
            self._sink_error = error
        if sink.full is not None and not self._complete:
            self._source.pause()
        if sink.done or sink.full is not None or self._sink_error is not None:
            self.wake()

    def _take(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        if self._size >= HIGH_WATER_BYTES:
            self._source.resume()
        self._size = 0
        return data

    def _change(self) -> "asyncio.Future[None]":
        """Done when there is something new; raises what the answer failed with."""
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        return waiter
