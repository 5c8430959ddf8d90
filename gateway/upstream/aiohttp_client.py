"""The upstream client on aiohttp: the same contract as `http1.HttpClient`, on a library that others maintain.

aiohttp parses leniently, and does not tell whether a request went out on a kept connection or on which one. So what it
lets through is checked here (`_checked`), and a connector that remembers its connections (`_Connector`) tells the rest.

Three things stay different, none of them a wrong answer: `Timeouts.first_byte` bounds the whole head; of bytes that
turn bad within one read nothing is given; and a reset hides whether half a head had come before it.
"""

import asyncio
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from gateway.errors import DeadlineExceeded, ReplicaSilent, ReplicaUnreachable, UpstreamFailed
from gateway.origin import Origin
from gateway.upstream.aiohttp_checks import BROKEN, LATE, checked, translated
from gateway.upstream.client import STALE_S, UpstreamResponse
from gateway.upstream.connection import MAX_HEADER_BYTES
from gateway.upstream.exchange import HIGH_WATER_BYTES
from gateway.upstream.liveness import watched
from gateway.upstream.timeouts import NEVER, Timeouts

_ADDED_BY_AIOHTTP = ("accept", "accept-encoding", "content-type", "user-agent")
# A connection that was idle for longer is not worth the try.
_KEEP_ALIVE_S = 60.0


class AiohttpClient:
    """Sends requests through one aiohttp session, which is made in the loop that first uses it.

    Args:
        timeouts: the bounds of an exchange that gets none of its own.
        tls: the context for https origins; the system's trust store by default.
    """

    def __init__(self, timeouts: Timeouts, tls: ssl.SSLContext | None = None) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        origin: Origin,
        path: str,
        headers: dict[str, str],
        body: bytes,
        timeouts: Timeouts | None = None,
        until: float = NEVER,
        fresh: bool = False,
    ) -> "AiohttpResponse":
        timeouts = timeouts or self._timeouts
        attempt = _Attempt(timeouts, until, fresh=fresh)
        try:
            return await self._ask(attempt, origin, path, headers, body)
        except ReplicaSilent as error:
            # A kept connection may be closed by the server just as we use it; a new one tells the truth.
            if not attempt.reused or asyncio.get_running_loop().time() - attempt.sent_at > STALE_S:
                raise
            silence = error
        try:
            return await self._ask(_Attempt(timeouts, until, fresh=True), origin, path, headers, body)
        except ReplicaUnreachable:
            raise silence from None  # it has had the request, and may have ended by it

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(
        self, attempt: "_Attempt", origin: Origin, path: str, headers: dict[str, str], body: bytes
    ) -> "AiohttpResponse":
        scheme = "https" if origin.tls else "http"
        url = URL(f"{scheme}://{origin.authority}{path}", encoded=True)
        left_s = max(attempt.until - asyncio.get_running_loop().time(), 0.001)
        connect_s = min(attempt.timeouts.connect, left_s)
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, ceil_threshold=NEVER)
        token = _current.set(attempt)
        try:
            async with attempt.deadline:
                response = await self._opened().post(
                    url, data=body, headers=headers, allow_redirects=False, timeout=timeout
                )
            return AiohttpResponse(response, attempt)
        except BaseException as error:
            attempt.abort()
            if isinstance(error, TimeoutError | aiohttp.ClientError):
                raise translated(error) from error
            raise
        finally:
            _current.reset(token)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=self._tls or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_ADDED_BY_AIOHTTP,
                auto_decompress=False,
                read_bufsize=HIGH_WATER_BYTES // 2,  # aiohttp's high water is twice that
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session


class AiohttpResponse(UpstreamResponse):
    """One answer being received; see `UpstreamResponse`."""

    def __init__(self, response: aiohttp.ClientResponse, attempt: "_Attempt") -> None:
        self.headers, self._until_eof = checked(response)
        self.status = response.status
        self._response = response
        self._attempt = attempt
        self._begun = False
        self._closed = attempt.protocol.closed if attempt.protocol is not None and not self.complete else None
        if self._closed is not None:
            self._closed.add_done_callback(self._on_connection_closed)

    @property
    def complete(self) -> bool:
        return self._response.content.is_eof() and not self._torn

    async def read(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._attempt.next_by(self._begun)):
                data = await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError) as error:
            self._attempt.abort()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(LATE) from error
            raise UpstreamFailed(BROKEN) from error
        if not data and self._torn:
            raise UpstreamFailed(BROKEN)
        self._begun = True
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

    timeouts: Timeouts
    until: float
    sent_at: float = 0.0
    fresh: bool = False
    reused: bool = False
    protocol: ResponseHandler | None = None
    transport: asyncio.Transport | None = None
    connection: Connection | None = None
    deadline: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))

    def connected(self, connection: Connection, reused: bool) -> None:
        self.reused, self.connection = reused, connection
        self.protocol, self.transport = connection.protocol, connection.transport  # gone once it is released
        self.sent_at = asyncio.get_running_loop().time()
        first_s = min(self.timeouts.first_byte, self.timeouts.first_token)
        self.deadline.reschedule(min(self.sent_at + first_s, self.until))

    def next_by(self, begun: bool) -> float:
        """Until when the next of the body has to come, by the loop's time."""
        if not begun:
            return min(self.sent_at + self.timeouts.first_token, self.until)
        return min(asyncio.get_running_loop().time() + self.timeouts.idle, self.until)

    def abort(self) -> None:
        """Closes the connection now: aiohttp would first send what is left of the request. Idempotent."""
        transport, self.transport = self.transport, None
        if transport is not None and self.connection is not None:
            transport.abort()
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
