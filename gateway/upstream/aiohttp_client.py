"""The upstream client on aiohttp: the same contract as `http1.HttpClient`, on a library that others maintain.

aiohttp parses leniently, and does not tell whether a request went out on a kept connection or on which one. So what it
lets through is checked here (`_checked`), and a connector that remembers its connections (`_Connector`) tells the rest.

Three things stay different, none of them a wrong answer: `Timeouts.first_byte` bounds the whole head; of bytes that
turn bad within one read nothing is given; and a reset hides whether half a head had come before it.
"""

import asyncio
import re
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from gateway.errors import DeadlineExceeded, GatewayError, ReplicaSilent, ReplicaUnreachable, UpstreamFailed
from gateway.origin import Origin
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.connection import MAX_HEADER_BYTES, Timeouts
from gateway.upstream.exchange import HIGH_WATER_BYTES
from gateway.upstream.liveness import watched

_ADDED_BY_AIOHTTP = ("accept", "accept-encoding", "content-type", "user-agent")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")  # what a 64-bit parser cannot take for "unknown"
# A connection that was idle for longer is not worth the try.
_KEEP_ALIVE_S = 60.0
_LATE = "The engine did not go on with its answer in time."
_BROKEN = "The engine closed the connection in the middle of its answer."


class AiohttpClient:
    """Sends requests through one aiohttp session, which is made in the loop that first uses it.

    Args:
        timeouts: the bounds of every exchange.
        tls: the context for https origins; the system's trust store by default.
    """

    def __init__(self, timeouts: Timeouts, tls: ssl.SSLContext | None = None) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def post(self, origin: Origin, path: str, headers: dict[str, str], body: bytes) -> "AiohttpResponse":
        attempt = _Attempt(self._timeouts.first_byte)
        try:
            return await self._ask(attempt, origin, path, headers, body)
        except ReplicaSilent:
            # A kept connection may be closed by the server just as we use it; a new one tells the truth.
            if not attempt.reused:
                raise
        return await self._ask(_Attempt(self._timeouts.first_byte, fresh=True), origin, path, headers, body)

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(
        self, attempt: "_Attempt", origin: Origin, path: str, headers: dict[str, str], body: bytes
    ) -> "AiohttpResponse":
        scheme = "https" if origin.tls else "http"
        url = URL(f"{scheme}://{origin.authority}{path}", encoded=True)
        token = _current.set(attempt)
        try:
            async with attempt.deadline:
                response = await self._opened().post(url, data=body, headers=headers, allow_redirects=False)
            return AiohttpResponse(response, attempt, self._timeouts.idle)
        except BaseException as error:
            attempt.abort()
            if isinstance(error, TimeoutError | aiohttp.ClientError):
                raise _translated(error) from error
            raise
        finally:
            _current.reset(token)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=self._tls or True),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect, ceil_threshold=float("inf")),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_ADDED_BY_AIOHTTP,
                auto_decompress=False,
                read_bufsize=HIGH_WATER_BYTES // 2,  # aiohttp's high water is twice that
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session


class AiohttpResponse(UpstreamResponse):
    """One answer being received; see `UpstreamResponse`."""

    def __init__(self, response: aiohttp.ClientResponse, attempt: "_Attempt", idle: float) -> None:
        self.headers, self._until_eof = _checked(response)
        self.status = response.status
        self._response = response
        self._attempt = attempt
        self._idle = idle
        self._closed = attempt.protocol.closed if attempt.protocol is not None and not self.complete else None
        if self._closed is not None:
            self._closed.add_done_callback(self._on_connection_closed)

    @property
    def complete(self) -> bool:
        return self._response.content.is_eof() and not self._torn

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                data = await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError) as error:
            self._attempt.abort()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(_LATE) from error
            raise UpstreamFailed(_BROKEN) from error
        if not data and self._torn:
            raise UpstreamFailed(_BROKEN)
        return data

    def close(self) -> None:
        if self._closed is not None:
            self._closed.remove_done_callback(self._on_connection_closed)
        if not self.complete:
            self._attempt.abort()
        self._response.close()

    def _on_connection_closed(self, closed: asyncio.Future[None]) -> None:
        """Wakes the reader of a broken answer: aiohttp closes the connection, and would let it wait."""
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())

    @property
    def _torn(self) -> bool:
        """Whether an answer that ends with its connection ended with a reset, which aiohttp takes for an end."""
        protocol = self._attempt.protocol
        return self._until_eof and protocol is not None and isinstance(protocol.exception(), OSError)


@dataclass(slots=True)
class _Attempt:
    """One request on one connection, and what aiohttp does not tell about it.

    Attributes:
        fresh: the connection has to be a new one.
        reused: the connection was a kept one.
        deadline: runs from the moment the request can be sent until the head of the answer is there.
    """

    first_byte: float
    fresh: bool = False
    reused: bool = False
    protocol: ResponseHandler | None = None
    transport: asyncio.Transport | None = None
    connection: Connection | None = None
    deadline: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))

    def connected(self, connection: Connection, reused: bool) -> None:
        self.reused, self.connection = reused, connection
        self.protocol, self.transport = connection.protocol, connection.transport  # gone once it is released
        self.deadline.reschedule(asyncio.get_running_loop().time() + self.first_byte)

    def abort(self) -> None:
        """Closes the connection now: aiohttp would first send what is left of the request."""
        if self.transport is not None and self.connection is not None:
            self.transport.abort()
            self.connection.close()


_current: ContextVar[_Attempt] = ContextVar("upstream_attempt")


class _Connector(aiohttp.TCPConnector):
    """Tells the attempt which connection it got, and hands out no kept one that received bytes in the meantime."""

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=watched, **options)
        self._seen: WeakSet[ResponseHandler] = WeakSet()

    async def connect(self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109
        attempt = _current.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                continue
            reused = protocol in self._seen
            if not reused or not (attempt.fresh or protocol.should_close):
                break
            connection.close()
        if not reused:
            self._seen.add(protocol)
            if protocol.closed is not None:
                protocol.closed.add_done_callback(_forget)
        attempt.connected(connection, reused)
        return connection


def _forget(closed: asyncio.Future[None]) -> None:
    """Takes note of how a connection ended, which would be logged otherwise: a kept one may end as it likes."""
    if not closed.cancelled():
        closed.exception()


def _checked(response: aiohttp.ClientResponse) -> tuple[dict[bytes, bytes], bool]:
    """The headers, and whether the answer ends with its connection; raises for what aiohttp's parser lets through."""
    pairs = [(name.lower(), value) for name, value in response.raw_headers]
    headers = dict(pairs)
    encoding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if response.status < 200:
        what = "switched protocols unasked"
    elif sum(len(name) + len(value) for name, value in pairs) > MAX_HEADER_BYTES:
        what = "sent headers without end"
    elif any(_CONTROL.search(value) for _, value in pairs):
        what = "sent a control character in a header"
    elif sum(name in {b"transfer-encoding", b"content-length"} for name, _ in pairs) > 1:
        what = "gave the length of its answer twice"
    elif encoding is not None and encoding.lower() != b"chunked":
        what = "used a transfer encoding that was not asked for"
    elif length is not None and not _LENGTH.fullmatch(length):
        what = "gave its answer an impossible length"
    elif headers.get(b"content-encoding", b"identity").lower() != b"identity":
        what = "used a content encoding that was not asked for"
    else:
        return headers, encoding is None and length is None
    raise UpstreamFailed(f"The engine broke the HTTP protocol: it {what}.")


def _translated(error: TimeoutError | aiohttp.ClientError) -> GatewayError:
    """aiohttp's error before the head of an answer, in our terms."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return ReplicaUnreachable(f"No connection to the engine ({type(error).__name__}).")
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(_LATE)
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return UpstreamFailed(_BROKEN)  # the message is the half of a head that had come
    if isinstance(error, aiohttp.ClientConnectionError):
        return ReplicaSilent("The engine closed the connection without an answer.")
    return UpstreamFailed(f"The engine broke the HTTP protocol ({type(error).__name__}).")
