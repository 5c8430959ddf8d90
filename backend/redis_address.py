"""Where Redis is, as a URL says: one server, the master that Sentinels name, or a Redis Cluster.

    redis://[user:password@]host[:port][/db][?option=value]     rediss:// with TLS
    unix://[user:password@]path[?db=0]
    redis+sentinel://[user:password@]host[:port][,host[:port]]/service[/db][?option=value]     rediss+sentinel://
    redis+cluster://[user:password@]host[:port][,host[:port]][?option=value]     rediss+cluster://

Options are redis-py's, for the servers; `sentinel_username` and `sentinel_password` are for the Sentinels.
Source: https://redis-py.readthedocs.io/en/stable/connections.html; the form for Sentinels is that of LangChain, RedisVL
and Prefect. gateway/ and backend/ have the same file each; tests/test_contracts.py holds that.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import ClusterDownError, MovedError, ReadOnlyError
from redis.retry import Retry as BlockingRetry

from backend.redis_cluster import WRONG_URL, Cluster
from backend.redis_master import BlockingMasterPool, Finder, MasterPool, Sentinels

SERVER_PORT, SENTINEL_PORT = 6379, 26379
# What a server says that is not, or not any more, the one for us.
_NOT_HERE = (ReadOnlyError, MovedError, ClusterDownError)


class Address(NamedTuple):
    """
    Attributes:
        options: of a connection to a server, as redis-py has them, with `ssl`; host and port where `finder` is None.
        sentinels: their hosts and ports.
        service: what the Sentinels call the servers.
        sentinel_options: of a connection to a Sentinel.
        nodes: of a Redis Cluster, their hosts and ports.
    """

    options: Mapping[str, Any]
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Any] = {}
    nodes: tuple[tuple[str, int], ...] = ()

    def finder(self) -> Finder | None:
        """Who knows where the server is, unless the address itself says it."""
        if self.nodes:
            return Cluster(self.nodes, self.options)
        return Sentinels(self.sentinels, self.service, self.sentinel_options) if self.sentinels else None


def parse(url: str) -> Address:
    """Raises ValueError, whose message does not repeat the URL, for one that is none."""
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        return Address(_options(url))
    server, _, kind = scheme.partition("+")
    if server not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        raise ValueError(
            "a Redis URL begins with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
            "redis+cluster:// or rediss+cluster://"
        )
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    who, at, hosts = authority.rpartition("@")
    if kind == "cluster":
        if path not in ("", "0"):
            raise ValueError(
                "a Redis Cluster has no databases, and its URL ends with the nodes: redis+cluster://host:6379; "
                "a password wants special characters as %XX"
            )
        options = _without_host(f"{server}://{who}{at}_/?{query}")
        return Address(options, nodes=_places(hosts, SERVER_PORT, "nodes"))
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("a Sentinel URL names its service: redis+sentinel://host:26379/service")
    options = _without_host(f"{server}://{who}{at}_/{db}?{query}")
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    own |= {name: value for name, value in options.items() if name.startswith("ssl")}
    return Address(options, _places(hosts, SENTINEL_PORT, "Sentinels"), service, own)


def client(url: str, timeout_s: float, **options: Any) -> Redis:
    """A client that asks again at once where a connection is stale, or leads to a master that is none any more."""
    address = parse(url)
    bounds = {**_bounds(timeout_s), "retry": Retry(NoBackoff(), 1)}
    finder = address.finder()
    if finder is None:
        return Redis.from_url(url, **bounds, **options)
    return Redis.from_pool(MasterPool(finder, **{**address.options, **bounds, **options}))


def blocking_client(url: str, timeout_s: float) -> BlockingRedis:
    """The same, for code that waits."""
    address = parse(url)
    bounds = {**_bounds(timeout_s), "retry": BlockingRetry(NoBackoff(), 1)}
    finder = address.finder()
    if finder is None:
        return BlockingRedis.from_url(url, **bounds)
    return BlockingRedis.from_pool(BlockingMasterPool(finder, **{**address.options, **bounds}))


def explain(url: str, error: Exception) -> str:
    """What went wrong with the Redis at this URL, in one line."""
    if isinstance(error, MovedError) and not parse(url).nodes:
        return WRONG_URL
    # Where a command is unknown, Redis repeats its arguments: with AUTH and HELLO, the password.
    return str(error).partition(", with args")[0]


def _bounds(timeout_s: float) -> dict[str, Any]:
    return {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry_on_error": [*_NOT_HERE]}


def _without_host(url: str) -> dict[str, Any]:
    options = _options(url)
    del options["host"]
    return options


def _options(url: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:  # whose message may repeat a piece of the password
        raise ValueError("this Redis URL cannot be read; its password wants special characters as %XX") from None
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    return options


def _places(hosts: str, port: int, whose: str) -> tuple[tuple[str, int], ...]:
    return tuple(_place(text, port, whose) for text in hosts.split(","))


def _place(text: str, usual_port: int, whose: str) -> tuple[str, int]:
    """`host`, `host:port` or `[address]:port`."""
    host, port = text, str(usual_port)
    if ":" in text and not text.endswith("]"):
        host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"the {whose} of a Redis URL are host:port, with a comma between them")
    return host.strip("[]"), int(port)
