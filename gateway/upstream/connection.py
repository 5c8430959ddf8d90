"""One HTTP/1.1 exchange on one TCP connection: an asyncio protocol with httptools as its parser.

A connection carries one exchange at a time and is used again only when the answer was read to its end. Everything
else closes it, which is how an engine learns that nobody listens any more.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import asyncio
from typing import Protocol, cast

import httptools

from gateway.errors import DeadlineExceeded, GatewayError, ReplicaSilent, UpstreamFailed
from gateway.upstream.exchange import Exchange
from gateway.upstream.liveness import watch
from gateway.upstream.timeouts import NEVER, Timeouts

MAX_HEADER_BYTES = 64 * 1024
_FRAMING = frozenset({b"transfer-encoding", b"content-length"})


class Owner(Protocol):
    """Where a connection rests between exchanges."""

    def put(self, connection: "Connection") -> None: ...
    def discard(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """One TCP connection to an engine server, with the parser of its answers on it."""

    __deletable__ = ("_parser",)  # mypyc's word for it

    def __init__(self, owner: Owner) -> None:
        self.closed = False
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._body: list[bytes] = []  # what the current read had of it
        self.on_body = self._body.append
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None  # until its reader has closed it
        self._receiving: Exchange | None = None  # until its answer is complete or has failed
        self._headers: dict[bytes, bytes] | None = None  # while they come in
        self._bodiless_bytes = 0
        self._heard = False
        self._interim = False
        self._until_eof = False
        self._keep_alive = False
        self._begun = False  # there was some of the body
        self.sent_at = 0.0  # the last request, by the loop's time
        self._idle_s = 0.0
        self._deadline = self._first_token = self._until = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def send(self, request: bytes, timeouts: Timeouts, until: float) -> Exchange:
        """Sends one request and returns the exchange its answer will arrive in, by the loop's time `until`."""
        self._exchange = self._receiving = exchange = Exchange(self, self._loop)
        self._headers = exchange.headers
        self._bodiless_bytes = 0
        self._heard = self._until_eof = self._keep_alive = self._begun = False
        self.sent_at = now = self._loop.time()
        self._idle_s, self._first_token, self._until = timeouts.idle, now + timeouts.first_token, until
        self._deadline = min(now + timeouts.first_byte, self._first_token)
        at = self._timer_at
        if self._timer is None or self._deadline < at or until < at or now + timeouts.idle < at:
            self._arm()
        self._transport.write(request)
        return exchange

    def release(self, exchange: Exchange) -> None:
        if self._exchange is not exchange:
            return
        self._exchange = None
        if exchange.complete and self._keep_alive and not self.closed:
            self.resume()
            self._owner.put(self)
        else:
            exchange.fail(UpstreamFailed("The answer was closed before its end."))
            self._receiving = None
            self.abort()

    def pause(self) -> None:
        self._transport.pause_reading()
        self._deadline = float("inf")  # a slow client is not a stalled engine

    def resume(self) -> None:
        if not self.closed:
            self._transport.resume_reading()
            self._deadline = self._loop.time() + self._idle_s

    def abort(self) -> None:
        self.closed = True
        self._disarm()
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        watch(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        exchange = self._receiving
        if exchange is None:
            self.abort()  # bytes that nobody asked for
            return
        self._heard = True
        self._deadline = self._loop.time() + self._idle_s if self._begun else self._first_token
        self._bodiless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamFailed(f"The engine broke the HTTP protocol ({error.__context__ or error})."))
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamFailed("The engine changed to another protocol."))
        else:
            if self._receiving is None:
                self._body.clear()  # of a second answer, which nobody asked for
            elif self._body:
                self._deliver(exchange)
            if self._bodiless_bytes > MAX_HEADER_BYTES:  # of headers, chunk extensions or trailers
                self._fail(UpstreamFailed("The engine sent headers without end."))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._disarm()
        self._owner.discard(self)
        exchange = self._receiving
        if exchange is not None:
            if exchange.started and self._until_eof and exc is None:
                self.on_message_complete()
            elif self._heard:
                self._fail(UpstreamFailed("The engine closed the connection in the middle of its answer."))
            else:
                self._fail(ReplicaSilent("The engine closed the connection without an answer."))
        del self._parser  # it and this keep each other alive

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._interim = False
        if self._receiving is None:
            self._keep_alive = False  # a second answer to one request: this connection's framing can't be trusted

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if headers is None:
            return  # a trailer
        name = name.lower()
        if name in headers and name in _FRAMING:
            raise httptools.HttpParserError(f"{name.decode()} twice")
        headers[name] = value

    def on_headers_complete(self) -> None:
        exchange = self._receiving
        if exchange is None:
            return
        status, headers = self._parser.get_status_code(), exchange.headers
        if status < 200:
            if status == 101:
                raise httptools.HttpParserError("another protocol")
            self._interim = True
            headers.clear()
            return
        encoding = headers.get(b"transfer-encoding")
        sized = b"content-length" in headers
        if encoding is not None and (sized or encoding.lower() != b"chunked"):
            raise httptools.HttpParserError("a transfer-encoding that is not plain chunked")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise httptools.HttpParserError("a content encoding that was not asked for")
        self._until_eof = not sized and encoding is None
        self._headers = None
        exchange.status, exchange.started = status, True
        exchange.wake()

    def on_message_complete(self) -> None:
        exchange = self._receiving
        if exchange is None or self._interim:
            return
        if self._body:
            self._deliver(exchange)
        self._receiving = None
        self._keep_alive = not self._until_eof and self._parser.should_keep_alive()
        exchange.end()

    # timeouts: one lazy timer, which exchanges and reads do not touch; when it fires it looks at the deadline

    def _arm(self) -> None:
        self._disarm()
        self._timer_at = min(self._deadline, self._until, self._loop.time() + self._idle_s)
        self._timer = self._loop.call_at(self._timer_at, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._receiving is None:
            return
        if self._loop.time() < min(self._deadline, self._until):
            self._arm()
        else:
            self._fail(DeadlineExceeded("The engine did not go on with its answer in time."))

    def _fail(self, error: GatewayError) -> None:
        exchange, self._receiving = self._receiving, None
        if exchange is not None:
            if self._body:
                self._deliver(exchange)
            exchange.fail(error)
        self.abort()

    def _deliver(self, exchange: Exchange) -> None:
        body = self._body
        self._bodiless_bytes = 0
        if not self._begun:
            self._begun, self._first_token = True, NEVER
            self._deadline = self._loop.time() + self._idle_s
        exchange.feed(body[0] if len(body) == 1 else b"".join(body))
        body.clear()
