"""A Redis that has said it has something, and has not got it any more: its machine went before its disk had it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.limits import usage
from tests.gateway.redis_faults.gateways import PARTS, Gateway, create_key, gateway
from tests.gateway.redis_faults.servers import Server, server
from tests.polling import eventually


@pytest.fixture
async def unsynced(tmp_path, monkeypatch):
    """A gateway with a Redis that has its data on its disk, and from now on never says so."""
    with server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always", "--save", "") as redis:
        async with gateway(redis.url, create_key(redis.url)) as running:
            await running.settles(PARTS)
            await running.all_counted()
            monkeypatch.setattr(usage, "_SYNCS", 40)
            with redis.blocking() as client:
                client.config_set("appendfsync", "no")
            yield redis, running


def _file(redis: Server) -> Path:
    (path,) = redis.folder.glob("appendonlydir/*.incr.aof")
    return path


async def _counted_of_five(busy: Gateway) -> int:
    """How much of five more asks was added first. A flush may come among them: the rest then waits behind that."""
    before = await busy.counted()
    for _ in range(5):
        await busy.ask()

    async def more() -> bool:
        return await busy.counted() > before

    await eventually(more)
    return await busy.counted()


async def test_what_its_disk_has_not_got_is_given_to_it_again(unsynced):
    redis, busy = unsynced
    kept = _file(redis).stat().st_size
    await _counted_of_five(busy)
    redis.kill()
    with _file(redis).open("r+b") as file:
        file.truncate(kept)
    await busy.settles(frozenset())
    redis.start()
    await busy.settles(PARTS)
    await busy.all_counted()


async def test_what_it_was_given_again_counts_once(unsynced, monkeypatch):
    redis, busy = unsynced
    monkeypatch.setattr(usage, "_SYNC_MS", 10)
    monkeypatch.setattr(usage, "_SYNCS", 6000)
    counted = await _counted_of_five(busy)
    with redis.blocking() as client:
        before = client.info("commandstats")["cmdstat_waitaof"]["calls"]
        await eventually(lambda: client.info("commandstats")["cmdstat_waitaof"]["calls"] > before + 3)
        assert await busy.counted() == counted
        client.config_set("appendfsync", "always")
    await busy.ask()
    await busy.all_counted()


async def test_a_worker_that_stops_while_redis_has_yet_to_say_so_gives_it_the_rest_too(tmp_path, monkeypatch):
    monkeypatch.setattr(usage, "_SYNCS", 40)
    with server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "no", "--save", "") as redis:
        async with gateway(redis.url, create_key(redis.url)) as busy:
            await _counted_of_five(busy)
            await busy.ask()
            monkeypatch.setattr(usage, "_SYNCS", 1)
        today = datetime.now(UTC).date()
        async with Redis.from_url(redis.url) as client:
            assert sum(row.requests for row in await usage.read(client, today, today)) == busy.answered
