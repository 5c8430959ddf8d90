"""One answer being received: the reader's side of an HTTP/1.1 exchange."""

import asyncio
from collections import deque
from typing import Protocol

from gateway.errors import DeadlineExceeded, UpstreamFailed

HIGH_WATER_BYTES = 256 * 1024


class Source(Protocol):
    """The connection an answer arrives on."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def release(self, exchange: "Exchange") -> None: ...


class Exchange:
    """One answer being received: status, headers (lower-case names) and the body as it comes.

    Reading slower than the server sends pauses its socket, so that at most HIGH_WATER_BYTES and one read are held.
    """

    def __init__(self, source: Source) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self.started = False
        self._source = source
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._error: UpstreamFailed | DeadlineExceeded | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Waits for status and headers."""
        while not self.started:
            await self._wait()

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; `b""` once the answer is complete."""
        while not self._chunks and not self.complete:
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._size >= HIGH_WATER_BYTES:
            self._source.resume()
        self._size = 0
        return data

    async def body(self, max_bytes: int) -> bytes:
        """The rest of the answer; raises UpstreamFailed when it is longer than `max_bytes`."""
        parts, size = [], 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > max_bytes:
                raise UpstreamFailed(f"The engine's answer is longer than {max_bytes} bytes.")
        return b"".join(parts)

    async def drain(self, seconds: float) -> None:
        """Reads what is left of an answer whose content is known to be over, so that its connection can be kept."""
        try:
            async with asyncio.timeout(seconds):
                while await self.read():
                    pass
        except (TimeoutError, UpstreamFailed, DeadlineExceeded):
            return

    def close(self) -> None:
        """Gives the connection back when the answer was read to its end, and aborts it otherwise. Idempotent."""
        self._source.release(self)

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        before, self._size = self._size, self._size + len(data)
        if before < HIGH_WATER_BYTES <= self._size:
            self._source.pause()
        self.wake()

    def fail(self, error: UpstreamFailed | DeadlineExceeded) -> None:
        self._error = self._error or error
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        elif not self._chunks:
            raise self._error
