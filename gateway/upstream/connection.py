"""One HTTP/1.1 exchange on one TCP connection: an asyncio protocol with httptools as its parser.

A connection carries one exchange at a time and is used again only when the answer was read to its end. Everything
else closes it, which is how an engine learns that nobody listens any more.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from gateway.errors import DeadlineExceeded, ReplicaSilent, UpstreamFailed
from gateway.upstream.exchange import Exchange

MAX_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on one exchange, in seconds.

    Attributes:
        connect: until the TCP (and TLS) connection stands.
        first_byte: from the request until the first byte of the answer: queueing and prefill happen here.
        idle: between two reads of the answer.
    """

    connect: float = 2.0
    first_byte: float = 300.0
    idle: float = 60.0


class Owner(Protocol):
    """Where a connection rests between exchanges."""

    def put(self, connection: "Connection") -> None: ...
    def discard(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """One TCP connection to an engine server, with the parser of the answer on it."""

    def __init__(self, owner: Owner, timeouts: Timeouts) -> None:
        self.reused = False
        self.closed = False
        self._owner = owner
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._exchange: Exchange | None = None
        self._header_bytes = 0
        self._interim = False
        self._until_eof = False
        self._keep_alive = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def send(self, request: bytes) -> Exchange:
        """Sends one request and returns the exchange its answer will arrive in."""
        self._parser = httptools.HttpResponseParser(self)
        self._exchange = exchange = Exchange(self)
        self._header_bytes, self._until_eof, self._keep_alive = 0, False, False
        self._deadline = self._loop.time() + self._timeouts.first_byte
        self._arm()
        self._transport.write(request)
        return exchange

    def release(self, exchange: Exchange) -> None:
        if self._exchange is not exchange:
            return
        self._exchange = None
        self._disarm()
        if exchange.complete and self._keep_alive and not self.closed:
            self.resume()
            self._owner.put(self)
        else:
            self.abort()

    def pause(self) -> None:
        self._transport.pause_reading()
        self._deadline = float("inf")  # a slow client is not a stalled engine

    def resume(self) -> None:
        if not self.closed:
            self._transport.resume_reading()
            self._deadline = self._loop.time() + self._timeouts.idle

    def abort(self) -> None:
        self.closed = True
        self._disarm()
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def data_received(self, data: bytes) -> None:
        exchange = self._receiving
        if exchange is None:
            self.abort()  # bytes that nobody asked for
            return
        self._deadline = self._loop.time() + self._timeouts.idle
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"broke the HTTP protocol ({error.__context__ or error})")
            return
        if not exchange.started:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._fail("sent headers without end")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._disarm()
        self._owner.discard(self)
        exchange = self._receiving
        if exchange is None:
            return
        if exchange.started and self._until_eof and exc is None:
            self.on_message_complete()
        elif exchange.started:
            exchange.fail(UpstreamFailed("The engine closed the connection in the middle of its answer."))
        else:
            exchange.fail(ReplicaSilent("The engine closed the connection without an answer."))

    @property
    def _receiving(self) -> Exchange | None:
        """The exchange whose answer is still coming in."""
        return self._exchange if self._exchange is not None and not self._exchange.complete else None

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._interim = False
        if self._receiving is None:
            self._keep_alive = False  # a second answer to one request: this connection's framing can't be trusted

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is not None:
            self._receiving.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        exchange = self._receiving
        if exchange is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            exchange.headers.clear()
            return
        headers = exchange.headers
        chunked, sized = b"transfer-encoding" in headers, b"content-length" in headers
        if chunked and sized:
            raise httptools.HttpParserError("both content-length and transfer-encoding")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise httptools.HttpParserError("a content encoding that was not asked for")
        self._until_eof = not (chunked or sized)
        exchange.status, exchange.started = status, True
        exchange.wake()

    def on_body(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.feed(data)

    def on_message_complete(self) -> None:
        exchange = self._receiving
        if exchange is None or self._interim:
            return
        self._keep_alive = not self._until_eof and self._parser.should_keep_alive()
        exchange.complete = True
        self._disarm()
        exchange.wake()

    # timeouts: one lazy timer, moved only when it fires

    def _arm(self) -> None:
        self._timer = self._loop.call_at(min(self._deadline, self._loop.time() + self._timeouts.idle), self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        if self._loop.time() < self._deadline:
            self._arm()
        elif self._exchange is not None:
            self._exchange.fail(DeadlineExceeded("The engine did not go on with its answer in time."))
            self.abort()

    def _fail(self, what: str) -> None:
        if self._exchange is not None:
            self._exchange.fail(UpstreamFailed(f"The engine {what}."))
        self.abort()
