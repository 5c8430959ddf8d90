"""One request and its response: the ASGI side of a client connection.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.types import ASGIApp, Message, Scope

from gateway.errors import GatewayError, NoReplica
from gateway.server.request_body import RequestBody
from gateway.server.response_head import Headers, ResponseHead

log = logging.getLogger(__name__)


class Channel(Protocol):
    """The connection a request came on, as its exchange uses it."""

    paused: asyncio.Future[None] | None

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...
    def write(self, data: bytes) -> None: ...
    def answered(self, exchange: "Exchange") -> None: ...
    def ended(self, exchange: "Exchange") -> None: ...
    def close(self) -> None: ...


class Exchange:
    """Runs the application on one request. The task ends with the client: when it leaves, the task is cancelled,
    unless others want what it makes.

    Attributes:
        fields: the request's headers by lower-case name; of a repeated one the last.
        body: of the request.
        request_id: set by the outermost layer.
        client_left: the connection was lost before the response was complete.
        answered: the response is over: its last byte is written, or it was cut.
        status: of the response; 0 while there is none.
        began_at: by `time.perf_counter`; `first_byte_s` and `last_byte_s` are counted from it.
        response_headers: go into the response beside the application's.
        keep_alive: another request may follow on this connection.
        on_leave: called when the client leaves, in the place of the task's cancellation: it decides of that.
        on_end: called with this and the scope when the application has returned.
        running: the application has been called.
    """

    __slots__ = (
        "_body_delivered", "_channel", "_failure", "_flowing", "_head", "_over", "_remaining", "_scope", "_unsent_head",
        "answered", "began_at", "body", "client_left", "fields", "first_byte_s", "keep_alive", "last_byte_s", "on_end",
        "on_leave", "request_id", "response_headers", "running", "status", "task",
    )  # fmt: skip

    def __init__(
        self, channel: Channel, scope: Scope, fields: Mapping[bytes, bytes], body: RequestBody, keep_alive: bool
    ) -> None:
        self.fields = fields
        self.body = body
        self.client_left = False
        self.answered = False
        self.keep_alive = keep_alive
        self.running = False
        self.request_id = b""
        self.status = 0
        self.began_at = time.perf_counter()
        self.first_byte_s: float | None = None
        self.last_byte_s: float | None = None
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.on_leave: Callable[[], None] | None = None
        self.on_end: Callable[[Exchange, Scope], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._channel = channel
        self._scope = scope
        self._body_delivered = False
        self._over: asyncio.Event | None = None
        self._failure: GatewayError | None = None
        self._head: ResponseHead | None = None
        self._flowing = False  # a body in chunks is under way
        self._unsent_head = b""
        self._remaining: int | None = None
        scope["extensions"]["llmgw.exchange"] = self

    async def run(self, app: ASGIApp) -> None:
        """Calls the application, and keeps the connection's framing right whatever it does."""
        self.running = True
        try:
            await app(self._scope, self.receive, self.send)
            if not self.answered and not self.client_left:
                log.error("request %s was left without a complete response", self._name)
        except asyncio.CancelledError:
            if not self.client_left:
                self._failure = NoReplica("The gateway stopped before the answer was there. Please try again.")
                raise
        except Exception:
            if not self.client_left:
                log.exception("request %s failed", self._name)
        finally:
            self._scope["extensions"].clear()  # the scope and this would keep each other alive
            if not self.answered:
                self._break_off()
                self.body.drop()
            self._channel.ended(self)
            if self.on_end is not None:
                self.on_end(self, self._scope)

    def leave(self) -> None:
        """The client is gone: nobody wants the rest of the answer."""
        if not self.answered and not self.client_left:
            self.client_left, self._flowing = True, False
            if self.on_leave is not None:
                self.on_leave()
            elif self.task is not None:
                self.task.cancel()
            if not self.running:  # and never will be
                self._scope["extensions"].clear()
            self._wake()

    # ASGI

    async def receive(self) -> Message:
        """What has arrived of the body; after its end, waits until the exchange is over.

        Raises:
            GatewayError: as RequestBody.read.
        """
        if not self._body_delivered:
            body = await self.body.read()
            self._body_delivered = self.body.complete
            return {"type": "http.request", "body": body, "more_body": not self._body_delivered}
        if not self.answered and not self.client_left:
            self._over = self._over or asyncio.Event()
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self._keep_up()
        if message["type"] == "http.response.start":
            self.start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.write(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")

    # Beside ASGI, for raw endpoints: the same without messages, and for who relays a stream, without waiting

    @property
    def full(self) -> asyncio.Future[None] | None:
        """Done when the client has read enough for more; None while it keeps up."""
        return self._channel.paused

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole response."""
        if self._channel.paused is not None:
            await self._keep_up()
        self.start(status, headers, len(body))
        self.write(body, more=False)

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Status and headers; they go out with the first of the body, as ASGI has it, in one packet.

        Args:
            length: as of ResponseHead.
        """
        if self.status:
            raise RuntimeError("a second response to one request")
        scope, body = self._scope, self.body
        # A client that was not told to go on may send its body now, or not.
        keep_alive = self.keep_alive and (body.complete or not body.expects_continue)
        headers = (*self._channel.default_headers, *headers, *self.response_headers)
        head = ResponseHead(status, headers, scope["method"], scope["http_version"], keep_alive, length)
        body.expects_continue = False
        self.status, self.keep_alive = status, head.keep_alive
        self.first_byte_s = time.perf_counter() - self.began_at
        self._head, self._unsent_head, self._remaining = head, head.data, head.length

    def write(self, body: bytes, more: bool = True) -> bool:
        """A part of the body; returns whether the client keeps up.

        Once it has left, nothing is written: the task may still speak.
        """
        if self._flowing and more and body:  # nearly all of a stream
            channel = self._channel
            channel.write(b"%x\r\n%b\r\n" % (len(body), body))
            return channel.paused is None
        if self.client_left:
            return True
        if not self.status or self.answered:
            raise RuntimeError("a response body out of turn")
        data = self._framed(body, more)
        if self._unsent_head:
            data, self._unsent_head = self._unsent_head + data, b""
        if data:
            self._channel.write(data)
        if more:
            self._flowing = self._head is not None and self._head.chunked
        else:
            self._end()
        return self._channel.paused is None

    async def _keep_up(self) -> None:
        while self.full is not None:
            await asyncio.shield(self.full)  # it is the connection's, for every exchange

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self._head is None or self._head.silent:
            return b""
        if self._head.chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._remaining is not None:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("a response body that is not as long as declared")
        return body

    def _end(self) -> None:
        self.answered, self._flowing = True, False
        self.last_byte_s = time.perf_counter() - self.began_at
        self.body.drop()
        self._channel.answered(self)
        self._wake()

    def _wake(self) -> None:
        if self._over is not None:
            self._over.set()

    @property
    def _name(self) -> str:
        """For the log: never the path as decoded, which could forge lines."""
        return self.request_id.decode() or repr(self._scope["raw_path"])

    def _break_off(self) -> None:
        """The application ended without a whole response: a 500 if nothing was sent, else a cut that shows."""
        if self.client_left or (self.status and not self._unsent_head):
            self.answered, self._flowing = True, False
            self._wake()
            self._channel.close()
            return
        self.status = 0
        failure = self._failure or GatewayError("Internal error.")
        body = failure.body()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers += [(name.encode(), value.encode()) for name, value in failure.headers.items()]
        self.start(failure.status, [*headers, (b"connection", b"close")])
        self.write(body, more=False)
