"""Where Redis is, as a URL says: one server, or the master that Sentinels name.

    redis://[user:password@]host[:port][/db][?option=value]     rediss:// with TLS
    unix://[user:password@]path[?db=0]
    redis+sentinel://[user:password@]host[:port][,host[:port]]/service[/db][?option=value]     rediss+sentinel://

Options are redis-py's, for the servers; `sentinel_username` and `sentinel_password` are for the Sentinels.
Source: https://redis-py.readthedocs.io/en/stable/connections.html; the form for Sentinels is that of LangChain, RedisVL
and Prefect. gateway/ and backend/ have the same file each; tests/test_contracts.py holds that.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from redis import Redis as BlockingRedis
from redis import Sentinel as BlockingSentinel
from redis.asyncio import Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import ReadOnlyError
from redis.retry import Retry as BlockingRetry

SENTINEL_PORT = 26379
SENTINEL_S = 0.3


class Address(NamedTuple):
    """
    Attributes:
        options: of a connection to a server, as redis-py has them, with `ssl`; without host and port for Sentinels.
        sentinels: their hosts and ports; empty where the server itself is named.
        service: what the Sentinels call the servers.
        sentinel_options: of a connection to a Sentinel.
    """

    options: Mapping[str, Any]
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Any] = {}


def parse(url: str) -> Address:
    """Raises ValueError, whose message does not repeat the URL, for one that is none."""
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        return Address(_options(url))
    if scheme not in ("redis+sentinel", "rediss+sentinel"):
        raise ValueError(
            "a Redis URL begins with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
        )
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    who, at, hosts = authority.rpartition("@")
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("a Sentinel URL names its service: redis+sentinel://host:26379/service")
    options = _options(f"{scheme.removesuffix('+sentinel')}://{who}{at}_/{db}?{query}")
    del options["host"]
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    own |= {name: value for name, value in options.items() if name.startswith("ssl")}
    return Address(options, tuple(map(_sentinel, hosts.split(","))), service, own)


def client(url: str, timeout_s: float, **options: Any) -> Redis:
    """A client that asks again at once where a connection is stale, or leads to a master that is none any more."""
    address = parse(url)
    bounds = _bounds(Retry(NoBackoff(), 1), timeout_s)
    if not address.sentinels:
        return Redis.from_url(url, **bounds, **options)
    servers = {**address.options, **bounds, **options}
    pool = SentinelConnectionPool(address.service, sentinels(address), **servers)  # type: ignore[no-untyped-call]
    return _ClientOfSentinels.from_pool(pool)


def blocking_client(url: str, timeout_s: float) -> BlockingRedis:
    """The same, for code that waits."""
    address = parse(url)
    bounds = _bounds(BlockingRetry(NoBackoff(), 1), timeout_s)
    if not address.sentinels:
        return BlockingRedis.from_url(url, **bounds)
    asked = _sentinel_options(address, BlockingRetry(NoBackoff(), 0))
    found = BlockingSentinel(address.sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    return found.master_for(address.service, **address.options, **bounds)  # type: ignore[no-any-return, no-untyped-call]


def sentinels(address: Address) -> Sentinel:
    """Whom to ask for the master. Close it after use."""
    asked = _sentinel_options(address, Retry(NoBackoff(), 0))
    return _Sentinels(address.sentinels, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        """Host and port. redis-py's own error describes every client in full."""
        try:
            return await super().discover_master(service_name)
        except MasterNotFoundError:
            raise MasterNotFoundError(f"no Sentinel names a master of '{service_name}'") from None


class _ClientOfSentinels(Redis):
    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await self.connection_pool.sentinel_manager.aclose()  # type: ignore[attr-defined]


def _bounds(retry: Retry | BlockingRetry, timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": retry,
        "retry_on_error": [ReadOnlyError],
    }


def _sentinel_options(address: Address, retry: Retry | BlockingRetry) -> dict[str, Any]:
    bounds = {"socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S}
    return {**address.sentinel_options, **bounds, "retry": retry}


def _options(url: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:  # whose message may repeat a piece of the password
        raise ValueError("this Redis URL cannot be read; its password wants special characters as %XX") from None
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    return options


def _sentinel(text: str) -> tuple[str, int]:
    """`host`, `host:port` or `[address]:port`."""
    host, port = text, str(SENTINEL_PORT)
    if ":" in text and not text.endswith("]"):
        host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("the Sentinels of a Redis URL are host:port, with a comma between them")
    return host.strip("[]"), int(port)
