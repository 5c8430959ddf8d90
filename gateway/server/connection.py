"""One client connection: HTTP/1.1 in, ASGI exchanges out; an asyncio protocol.

uvicorn runs it (sockets, signals, lifespan, draining). Its own protocol is general; this one does what a gateway of
long streams needs: a request's task is cancelled when its client leaves, also behind pipelined requests; and whatever
a client leaves half done or does not read ends in bounded time and memory.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import asyncio
import socket
from collections import deque
from typing import Any, cast

from uvicorn import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.errors import GatewayError
from gateway.server.bounds import Bounds
from gateway.server.departure import has_left
from gateway.server.exchange import Exchange
from gateway.server.lingering import LingeringClose
from gateway.server.request_body import RequestBody
from gateway.server.request_head import RequestHead
from gateway.server.request_parser import RequestParser
from gateway.server.response_head import refusal


class ClientConnection(asyncio.Protocol):
    """Parses requests and runs the application on them, one after the other.

    Args:
        bounds: what the client may take.
        config, server_state, app_state: uvicorn's, as it makes every protocol.

    Attributes:
        paused: done when the client has read enough of what was written; None while it keeps up.
    """

    __deletable__ = ("_parser",)  # mypyc's word for it

    def __init__(
        self,
        bounds: Bounds,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.paused: asyncio.Future[None] | None = None
        self._server_state = server_state
        self._bounds = bounds
        self._app = config.loaded_app
        self._tasks = server_state.tasks
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = RequestParser(self, bounds.head_bytes)
        self._transport: asyncio.Transport
        self._scope: dict[str, Any] = {}
        self._open: deque[Exchange] = deque()  # the first is being answered, the others wait
        self._receiving: Exchange | None = None  # until its body is complete
        self._closed = False
        self._deaf = False  # what comes in now is not read any more
        self._reading = True
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._read_at = 0.0  # when the client was last seen to read
        self._unread = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        accepted = transport.get_extra_info("socket")
        if accepted is not None and accepted.family in {socket.AF_INET, socket.AF_INET6}:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it on some sockets only
        tls = transport.get_extra_info("sslcontext") is not None
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "root_path": "",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "scheme": "https" if tls else "http",
        }
        self._deadline = self._loop.time() + self._bounds.head_s
        self._on_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._closed = self._deaf = True
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        for exchange in self._open:
            exchange.leave()
            if not exchange.running:
                self.ended(exchange)
        self._open.clear()
        self._receiving = None
        self._parser.close()
        del self._parser  # it and this keep each other alive

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            self._parser.feed(data)
        except GatewayError as error:
            self._refuse(error)

    def pause_writing(self) -> None:
        self.paused = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.paused is not None and not self.paused.done():
            self.paused.set_result(None)
        self.paused = None
        self._read_at = self._loop.time()

    # The parser's side

    def head_begun(self) -> None:
        if not self._open:
            self._deadline = self._loop.time() + self._bounds.head_s

    def head_complete(self, head: RequestHead, keep_alive: bool) -> None:
        if self._closed:
            return
        self._deadline = float("inf")
        body = RequestBody(self, self._bounds, head.declared, head.expects_continue)
        keep_alive = keep_alive and head.version == "1.1"
        self._receiving = exchange = Exchange(self, head.scope(self._scope), head.fields, body, keep_alive)
        self._open.append(exchange)
        if len(self._open) == 1:
            self._begin(exchange)
        elif len(self._open) > self._bounds.pipelined + 1:
            self.close()

    def body_received(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.body.feed(data)
            if self._receiving.body.unread > self._bounds.buffered_bytes and self._reading:
                self._reading = False
                self._transport.pause_reading()

    def body_complete(self) -> None:
        exchange, self._receiving = self._receiving, None
        if exchange is not None:
            exchange.body.end()
            if exchange.answered and not self._open:
                self._deadline = self._loop.time() + self._bounds.idle_s

    # The exchange's side

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self._server_state.default_headers  # uvicorn makes a new one every second, for the date

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._transport.write(data)

    def read_on(self) -> None:
        if not self._reading and not self._closed:
            self._reading = True
            self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        self._open.popleft()
        if not exchange.keep_alive:
            if self._receiving is None:
                self.close()
            else:
                self._linger()
            return
        self.read_on()
        if self._open:
            if not self._closed:
                self._begin(self._open[0])
            return
        bounds = self._bounds
        # What is left of a refused body is read and dropped, but not for ever.
        waits = bounds.head_s if self._parser.in_head else bounds.idle_s if exchange.body.complete else bounds.body_s
        self._deadline = self._loop.time() + waits

    def ended(self, exchange: Exchange) -> None:
        """Its application has returned, or will not be called."""
        if exchange.task is not None:
            self._tasks.discard(exchange.task)

    def close(self) -> None:
        """Closes once everything is written."""
        if not self._closed:
            self._closed = self._deaf = True
            self._transport.close()

    # uvicorn's side

    def shutdown(self) -> None:
        """The worker stops: finish what is being answered, then close."""
        if self._open:
            self._last_request()
        elif self._receiving is not None and not self._deaf:  # its client has the answer, and still sends
            self._linger()
        elif not self._deaf:  # else it is ending
            self.close()

    def _begin(self, exchange: Exchange) -> None:
        # Named, since asyncio counts and formats a name for one that is not.
        exchange.task = task = self._loop.create_task(exchange.run(self._app), name="request")
        self._tasks.add(task)

    def _last_request(self) -> None:
        for exchange in self._open:
            exchange.keep_alive = False

    def _refuse(self, error: GatewayError) -> None:
        """Answers what is no request, unless an answer is under way: then that one is the last."""
        self._deaf = True
        if self._open:
            self._last_request()
            if self._receiving is not None:
                self._receiving.body.fail(error)
            return
        if self._receiving is None:
            self.write(refusal(error, self.default_headers))
        self._linger()

    def _linger(self) -> None:
        """Closes behind the last answer, once a client that still sends has got it."""
        if not self._closed:
            self._deaf = True
            self.read_on()
            self._deadline = self._loop.time() + self._bounds.body_s
            LingeringClose(self, self._transport, self._bounds)

    def _on_timer(self) -> None:
        """One lazy timer a connection: it looks at the deadline when it fires, and requests only move the deadline."""
        now, bounds, unread = self._loop.time(), self._bounds, self._transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread:
            self._read_at = now
        self._unread = unread
        if now - self._read_at >= bounds.stalled_s or (not self._reading and has_left(self._transport)):
            self._transport.abort()
            return
        if now >= self._deadline and not unread:
            self.close()
        wait_s = min(bounds.head_s, bounds.stalled_s)
        self._timer = self._loop.call_at(min(max(self._deadline, now + 0.01), now + wait_s), self._on_timer)
