"""Whatever ails Redis, every request has its answer; each part says so once, and comes back by itself."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from tests.conftest import RedisServer
from tests.gateway.redis_faults.gateways import PARTS, Gateway, create_key, gateway, key, told
from tests.gateway.redis_faults.proxy import Proxy
from tests.gateway.redis_faults.servers import Server, server
from tests.polling import eventually

FULL = frozenset({"cache_writes"})
LINK = frozenset({"requests", "quotas", "cache", "cache_writes"})
WRITERS = frozenset({"requests", "quotas", "cache_writes", "usage"})


@dataclass
class Site:
    server: RedisServer
    redis: Redis
    wire: Proxy
    times: Callable[..., None]


Step = Callable[[Site], Awaitable[object]]


def command(*words: str) -> Step:
    return lambda site: site.redis.execute_command(*words)


async def stall(site: Site) -> None:
    site.times(TIMEOUT=0.3, STALLED=1.0, CONNECT=0.3)
    site.wire.stall()


async def go_on(site: Site) -> None:
    site.times(TIMEOUT=10.0, STALLED=20.0, CONNECT=10.0)
    site.wire.go_on()


async def slow(site: Site) -> None:
    site.times(TIMEOUT=0.3, STALLED=20.0)
    site.wire.delay_s = 0.5


async def quick(site: Site) -> None:
    site.times(TIMEOUT=10.0)
    site.wire.delay_s = 0.0


async def cut(site: Site) -> None:
    site.wire.cut()


async def mend(site: Site) -> None:
    site.wire.mend()


async def change_password(site: Site) -> None:
    await site.redis.config_set("requirepass", "another")
    site.wire.cut()
    site.wire.mend()


async def change_it_back(site: Site) -> None:
    await site.redis.execute_command("AUTH", "another")
    await site.redis.config_set("requirepass", "")


def rights(*words: str) -> Step:
    """Of the gateway, whose connections are those of the wire; the test's own keep theirs by another name."""

    async def set_rights(site: Site) -> None:
        await site.redis.execute_command("ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all")
        await site.redis.execute_command("AUTH", "admin", "any")
        await site.redis.execute_command("ACL", "SETUSER", "default", *words)

    return set_rights


FAULTS: dict[str, tuple[Step, Step, frozenset[str]]] = {
    "stalled": (stall, go_on, PARTS),
    "slow": (slow, quick, LINK),
    "cut": (cut, mend, PARTS),
    "full": (command("CONFIG", "SET", "maxmemory", "1"), command("CONFIG", "SET", "maxmemory", "0"), FULL),
    "read-only": (command("REPLICAOF", "127.0.0.1", "1"), command("REPLICAOF", "NO", "ONE"), PARTS - {"keys"}),
    "too few replicas": (
        command("CONFIG", "SET", "min-replicas-to-write", "1"),
        command("CONFIG", "SET", "min-replicas-to-write", "0"),
        WRITERS,
    ),
    "password changed": (change_password, change_it_back, PARTS),
    "no right to scripts": (rights("-@scripting"), rights("+@all"), frozenset({"requests", "quotas", "usage"})),
    "no right to keys": (rights("resetkeys"), rights("~*"), PARTS),
}


@pytest.fixture
async def site(redis_server, wire, times) -> Site:
    redis = Redis.from_url(redis_server.url, single_connection_client=True)
    yield Site(redis_server, redis, wire, times)
    await redis.aclose()


def check_lines(lines: list[str], parts: int) -> None:
    """Each was said once, and of each part that it does not work and that it does."""
    assert {line: times for line, times in Counter(lines).items() if times > 1} == {}
    assert len(lines) >= 2 * parts


@pytest.mark.parametrize("fault", FAULTS)
async def test_traffic_goes_on_and_it_comes_back(busy: Gateway, site: Site, caplog, fault):
    begin, end, failing = FAULTS[fault]
    await begin(site)
    await busy.settles(PARTS - failing)
    for _ in range(5):
        await busy.ask()
    assert await busy.working() == PARTS - failing
    await end(site)
    await busy.settles(PARTS)
    check_lines(told(caplog)(), len(failing))
    await busy.all_counted()


async def test_a_redis_that_is_a_little_slow_is_used(busy: Gateway, site: Site, caplog):
    site.wire.delay_s = 0.02
    for _ in range(5):
        await busy.ask()
    assert await busy.working() == PARTS
    assert len(busy.engine.requests) == busy.answered / 2  # every second one out of the cache
    assert told(caplog)() == []
    await busy.all_counted()


async def test_a_gateway_starts_beside_a_redis_that_says_nothing(redis_server, wire, times, caplog):
    """Until it has read the keys, it can tell of none but its own whether it is right."""
    caplog.set_level("INFO", "gateway")
    times(TIMEOUT=0.3, CONNECT=0.3)
    wire.stall()
    stored, own = create_key(redis_server.url), key("own", tokens_per_minute=10**9, requests_per_minute=10**6)
    async with gateway(wire.url, "own", keys=[own]) as starting:
        for _ in range(5):
            await starting.ask()
        unread = await starting.client.get("/v1/models", headers={"authorization": f"Bearer {stored}"})
        assert (unread.status_code, unread.json()["error"]["code"]) == (503, "keys_unavailable")
        await eventually(lambda: "no connection to Redis" in caplog.text)
        times(TIMEOUT=10.0, CONNECT=10.0)
        wire.go_on()
        await starting.settles(PARTS)
        known = await starting.client.get("/v1/models", headers={"authorization": f"Bearer {stored}"})
        assert known.is_success
    assert caplog.text.count("no connection to Redis") == 1


@pytest.fixture
async def lasting(tmp_path, caplog) -> AsyncIterator[tuple[Server, Gateway]]:
    """A gateway with a Redis that keeps its data, as the embedded one does."""
    caplog.set_level("INFO", "gateway")
    with server(tmp_path / "redis", "--appendonly", "yes", "--save", "") as redis:
        async with gateway(redis.url, create_key(redis.url)) as running:
            await running.settles(PARTS)
            caplog.clear()
            yield redis, running


async def test_a_redis_that_is_killed_and_started_again_has_lost_and_doubled_nothing(lasting, caplog):
    redis, busy = lasting
    for _ in range(3):
        caplog.clear()
        enough = asyncio.Event()
        traffic = asyncio.create_task(_ask_until(busy, enough))
        await _asked(busy, 20)
        redis.kill()
        await busy.settles(frozenset())
        redis.start()
        await busy.settles(PARTS)
        enough.set()
        await traffic
        check_lines(told(caplog)(), len(PARTS))
        await busy.all_counted()


async def _ask_until(busy: Gateway, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await busy.ask()


async def _asked(busy: Gateway, count: int) -> None:
    enough = busy.answered + count
    await eventually(lambda: busy.answered >= enough)


async def test_a_redis_that_loads_its_data_is_waited_for(lasting, caplog):
    redis, busy = lasting
    with redis.blocking() as client:
        client.mset({f"filler:{number}": "x" * 100 for number in range(200)})
        client.execute_command("BGREWRITEAOF")
        await eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    redis.kill()
    await busy.settles(frozenset())
    redis.start("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
    await eventually(lambda: _loads(redis))
    await busy.ask()
    assert await busy.working() == frozenset()
    await busy.settles(PARTS)
    check_lines(told(caplog)(), len(PARTS))
    await busy.all_counted()


def _loads(redis: Server) -> bool:
    with redis.blocking() as client:
        return bool(client.info("persistence")["loading"])


async def test_a_redis_without_our_commands_is_one_line_and_no_more(lasting, caplog):
    """As an older one, or what only speaks some of the protocol."""
    redis, busy = lasting
    redis.kill()
    await busy.settles(frozenset())
    redis.start("--rename-command", "EVAL", "")
    await busy.settles(frozenset({"keys", "usage"}))
    assert caplog.text.count("no connection to Redis") == 1
    redis.kill()
    redis.start()
    await busy.settles(PARTS)
