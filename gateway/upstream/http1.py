"""The HTTP/1.1 client of the completion path: one keep-alive pool per origin.

It knows nothing of completions, of replicas' health or of failover; it gives one answer or one typed error.
"""

import asyncio
import logging
import ssl
import time

from gateway.errors import ReplicaSilent, ReplicaUnreachable
from gateway.origin import Origin
from gateway.upstream.client import STALE_S, UpstreamClient
from gateway.upstream.connection import Connection
from gateway.upstream.exchange import Exchange
from gateway.upstream.timeouts import NEVER, Timeouts

log = logging.getLogger(__name__)

MAX_IDLE_CONNECTIONS = 512


class HttpClient(UpstreamClient):
    """Sends requests over pooled connections.

    Args:
        timeouts: the bounds of an exchange that gets none of its own.
        tls: the context for https origins; the system's trust store by default.
    """

    def __init__(self, timeouts: Timeouts, tls: ssl.SSLContext | None = None) -> None:
        self._timeouts = timeouts
        self._tls = tls
        self._pools: dict[Origin, Pool] = {}

    async def post(
        self,
        origin: Origin,
        path: str,
        headers: dict[str, str],
        body: bytes,
        timeouts: Timeouts | None = None,
        until: float = NEVER,
        fresh: bool = False,
    ) -> Exchange:
        pool, timeouts = self._pool(origin), timeouts or self._timeouts
        request = _encode(path, pool.host_line, headers, body)
        connection = None if fresh else pool.kept()
        fresh = connection is None
        silence: BaseException | None = None  # of a kept connection
        while True:
            if connection is None:
                left_s = until - time.monotonic()
                try:
                    connection = await pool.connect(min(timeouts.connect, left_s))
                except ReplicaUnreachable:
                    if silence is None:
                        raise
                    raise silence from None  # it has had the request, and may have ended by it
            exchange = connection.send(request, timeouts, until)
            try:
                while not exchange.started:
                    await exchange.change()
            except BaseException as error:
                exchange.close()
                silent = isinstance(error, ReplicaSilent) and time.monotonic() - connection.sent_at <= STALE_S
                if fresh or not silent:
                    raise
                # A kept connection may be closed by the server just as we use it; a new one tells the truth.
                log.debug("a kept connection to %s was closed", origin.authority)
                connection, fresh, silence = None, True, error
            else:
                return exchange

    async def aclose(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, origin: Origin) -> "Pool":
        pool = self._pools.get(origin)
        if pool is None:
            tls = (self._tls or ssl.create_default_context()) if origin.tls else None
            pool = self._pools[origin] = Pool(origin, tls)
        return pool


def _encode(path: str, host_line: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    together = "".join(lines)
    if "\n" in together or "\r" in together:
        raise ValueError("a line break in a request header")
    head = "\r\n".join((f"POST {path} HTTP/1.1\r\n{host_line}content-length: {len(body)}", *lines, "\r\n"))
    return head.encode("latin-1") + body


class Pool:
    """Idle connections to one origin, last used first."""

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None) -> None:
        self.host_line = f"host: {origin.authority}\r\n"
        self._origin = origin
        self._tls = tls
        self._idle: list[Connection] = []
        self._closed = False

    def kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def connect(self, within_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        origin = self._origin
        try:
            async with asyncio.timeout(within_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), origin.host, origin.port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise ReplicaUnreachable(f"No connection to the engine ({type(error).__name__}).") from error
        return connection

    def put(self, connection: Connection) -> None:
        if len(self._idle) < MAX_IDLE_CONNECTIONS and not self._closed:
            self._idle.append(connection)
        else:
            connection.abort()

    def discard(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        self._closed = True
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()
