"""Clients of a master that may move: each connection asks anew who it is.

gateway/ and backend/ have the same file each; tests/test_contracts.py holds that.
"""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from redis import ConnectionPool as BlockingPool
from redis import Sentinel as BlockingSentinel
from redis import connection as blocking
from redis.asyncio import ConnectionPool, Sentinel, connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry as BlockingRetry
from redis.sentinel import MasterNotFoundError as BlockingMasterNotFoundError

SENTINEL_S = 0.3

Place = tuple[str, int]


class Finder(Protocol):
    """Knows where the master is. `redis_cluster.Cluster` is another one."""

    async def find(self) -> Place:
        """Its host and port. Raises RedisError where nobody can tell."""

    def find_blocking(self) -> Place:
        """The same, for code that waits."""


class Sentinels:
    """
    Args:
        places: of the Sentinels, by host and port.
        service: what they call the servers.
        options: of a connection to a Sentinel, as redis-py has them.
    """

    def __init__(self, places: Iterable[Place], service: str, options: Mapping[str, Any]) -> None:
        self._places = tuple(places)
        self._service = service
        self._options = {**options, "socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S}

    async def find(self) -> Place:
        options = {**self._options, "retry": Retry(NoBackoff(), 0)}
        async with Sentinel(self._places, sentinel_kwargs=options) as asked:  # type: ignore[no-untyped-call]
            try:
                host, port = await asked.discover_master(self._service)
            except MasterNotFoundError:
                raise self._not_found() from None
            return host, port

    def find_blocking(self) -> Place:
        options = {**self._options, "retry": BlockingRetry(NoBackoff(), 0)}
        asked = BlockingSentinel(self._places, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        try:
            host, port = asked.discover_master(self._service)  # type: ignore[no-untyped-call]
        except BlockingMasterNotFoundError:
            raise self._not_found() from None
        finally:
            for sentinel in asked.sentinels:
                sentinel.close()
        return host, port

    def _not_found(self) -> MasterNotFoundError:
        """redis-py's own error describes every client in full."""
        return MasterNotFoundError(f"no Sentinel names a master of '{self._service}'")


class MasterPool(ConnectionPool):
    """Connections to the master. When it is another one, those to the old one end, also where somebody listens on them:
    a node that was demoted goes on without a word.

    Attributes:
        place: of the master, as it was found last.
    """

    OMIT_REPR_KEYS = ConnectionPool.OMIT_REPR_KEYS | {"pool"}  # itself

    def __init__(self, finder: Finder, *, ssl: bool, **options: Any) -> None:
        kind = _TlsConnection if ssl else _Connection
        super().__init__(connection_class=kind, pool=weakref.proxy(self), **options)
        self.place: Place | None = None
        self._finder = finder

    async def find(self) -> Place:
        place = await self._finder.find()
        before, self.place = self.place, place
        if before not in (None, place):
            await self.disconnect()
        return place


class _Connection(connection.Connection):
    def __init__(self, *, pool: MasterPool, **options: Any) -> None:
        super().__init__(**options)
        self._pool = pool

    async def _connect(self) -> None:
        self.host, self.port = place = await self._pool.find()
        await super()._connect()  # type: ignore[no-untyped-call]
        if self._pool.place != place:  # found meanwhile by another connection, which could not yet end this one
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the master has moved")


class _TlsConnection(_Connection, connection.SSLConnection):
    pass


class BlockingMasterPool(BlockingPool):
    """The same, for code that waits; nobody listens there."""

    def __init__(self, finder: Finder, *, ssl: bool, **options: Any) -> None:
        kind = _BlockingTlsConnection if ssl else _BlockingConnection
        super().__init__(connection_class=kind, find=finder.find_blocking, **options)


class _BlockingConnection(blocking.Connection):
    def __init__(self, *, find: Any, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._find = find

    def _connect(self) -> Any:
        self.host, self.port = self._find()
        return super()._connect()  # type: ignore[no-untyped-call]


class _BlockingTlsConnection(_BlockingConnection, blocking.SSLConnection):
    pass
