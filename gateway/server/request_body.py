"""A request's body on its way from the connection to the application, bounded in size, time and memory."""

import asyncio
from typing import Protocol

from gateway.errors import BodyTooLarge, GatewayError, RequestTimeout
from gateway.server.bounds import Bounds

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Source(Protocol):
    """The connection a body comes on."""

    def write(self, data: bytes) -> None: ...
    def read_on(self) -> None: ...


class RequestBody:
    """What has arrived and was not read yet.

    Attributes:
        complete: all of it has arrived.
        unread: bytes held here.
        expects_continue: the client waits for a `100 Continue` before it sends the body.
    """

    __slots__ = (
        "_bounds", "_deadline", "_declared", "_dropped", "_error", "_parts", "_size", "_source", "_waiter",
        "complete", "expects_continue", "unread",
    )  # fmt: skip

    def __init__(self, source: Source, bounds: Bounds, declared: int, expects_continue: bool) -> None:
        self.complete = False
        self.unread = 0
        self.expects_continue = expects_continue
        self._source = source
        self._bounds = bounds
        self._declared = declared
        self._parts: list[bytes] = []
        self._size = 0
        self._dropped = False
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # The connection's side

    def feed(self, data: bytes) -> None:
        if not self._dropped:
            self._parts.append(data)
            self._size += len(data)
            self.unread += len(data)
            self._wake()

    def end(self) -> None:
        self.complete = True
        self._wake()

    def fail(self, error: GatewayError) -> None:
        """The rest of it cannot be understood."""
        self._error = error
        self._wake()

    def drop(self) -> None:
        """The request is answered: nobody reads what still comes."""
        self._dropped = True
        self._parts.clear()
        self.unread = 0
        if self._deadline is not None:
            self._disarm()

    # The application's side

    async def read(self) -> bytes:
        """What has arrived, at least one byte unless the body is complete.

        Raises:
            BodyTooLarge, RequestTimeout: the client exceeds its bounds.
            InvalidHTTP: the body is not framed as it should be.
        """
        self._check(self._declared)
        while not (self._parts or self.complete):
            if self._error is not None:
                raise self._error
            await self._wait()
        self._check(self._size)
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if self.unread > self._bounds.buffered_bytes:
            self._source.read_on()
        self.unread = 0
        return data

    def arrived(self) -> bytes | None:
        """All of it, if it is there already; raises as `read` does."""
        if not self.complete or len(self._parts) != 1 or self.unread > self._bounds.buffered_bytes:
            return None
        self._check(self._size)
        self.unread = 0
        return self._parts.pop()

    async def whole(self) -> bytes:
        """All of it; raises as `read` does."""
        parts = [await self.read()]
        while not self.complete:
            parts.append(await self.read())
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._bounds.body_bytes:
            raise BodyTooLarge(f"The request body is larger than {self._bounds.body_bytes} bytes.")

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        if self.expects_continue:
            self.expects_continue = False
            self._source.write(CONTINUE)
        self._source.read_on()
        if self._deadline is None:
            self._deadline = loop.call_later(self._bounds.body_s, self._late)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self.complete:
                self._disarm()

    def _late(self) -> None:
        self.fail(RequestTimeout(f"The request body did not arrive within {self._bounds.body_s:g} seconds."))

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
