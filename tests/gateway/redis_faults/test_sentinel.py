"""A master that Sentinels replace: killed, or made a replica."""

import asyncio
from dataclasses import replace

import pytest

from backend.directory import Record, State, connect
from backend.doorbell import Doorbell
from gateway import redis_address
from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from tests.gateway.limits.links import linked, running
from tests.gateway.redis_faults.gateways import PARTS, create_key, gateway, told
from tests.gateway.redis_faults.servers import Watched, watched
from tests.polling import eventually


@pytest.fixture
async def redis_watched(tmp_path):
    with watched(tmp_path) as servers:
        await eventually(servers.ready, within=30)
        yield servers


async def test_traffic_goes_on_over_the_death_of_the_master(redis_watched: Watched, caplog):
    caplog.set_level("INFO", "gateway")
    async with gateway(redis_watched.url, create_key(redis_watched.url)) as busy:
        await busy.settles(PARTS)
        await eventually(lambda: _replicated(redis_watched))
        caplog.clear()
        redis_watched.master.kill()
        for _ in range(20):
            await busy.ask()
        await busy.settles(PARTS)
        with redis_watched.replica.blocking() as new:
            assert new.info("replication")["role"] == "master"
            names = [client["name"] for client in new.client_list()]
        assert "llmgw" in names
        assert len(set(told(caplog)())) == len(told(caplog)())


def _replicated(servers: Watched) -> bool:
    with servers.master.blocking() as master, servers.replica.blocking() as replica:
        return master.info("replication")["master_repl_offset"] == replica.info("replication")["slave_repl_offset"]


async def test_the_link_leaves_a_master_that_becomes_a_replica(redis_watched: Watched):
    async with linked(redis_watched.url) as link:
        assert await link.call("SET", "k", 1) == b"OK"
        with redis_watched.sentinels[0].blocking() as sentinel:
            await eventually(lambda: _fails_over(sentinel))

        async def on_the_new_one() -> bool:
            try:
                return f":{redis_watched.replica.port} " in (await link.call("CLIENT", "INFO")).decode()
            except RedisUnavailable:
                return False

        await eventually(on_the_new_one, within=30)
        assert await link.call("SET", "k", 2) == b"OK"


def _fails_over(sentinel) -> bool:
    return bool(sentinel.execute_command("SENTINEL", "FAILOVER", "ours"))


async def test_one_sentinel_is_enough(redis_watched: Watched):
    for sentinel in redis_watched.sentinels[:2]:
        sentinel.kill()
    async with linked(redis_watched.url) as link:
        assert await link.call("PING") == b"PONG"


async def test_a_service_that_nobody_knows_is_one_line(redis_watched: Watched, caplog):
    link = RedisLink(redis_watched.url.replace("ours", "theirs"))
    async with running(link):
        await eventually(lambda: "no Sentinel names a master of 'theirs'" in caplog.text)
        await asyncio.sleep(0.3)  # some more tries
    assert caplog.text.count("theirs") == 1


async def test_the_backend_s_record_is_in_a_gateway_s_directory(redis_watched: Watched):
    backend = connect(redis_watched.url)
    replica = Record("m-1", State.READY, "m", "http://127.0.0.1:9000", "m", "llamacpp", ("chat",), (), 4096, 4, "r1")
    await backend.publish([replica])
    doorbell = Doorbell(redis_watched.url, [replace(replica, id="asleep", model="sleeper", state=State.ASLEEP)])
    assert not doorbell.rung()
    async with redis_address.client(redis_watched.url, 2.0) as redis:
        assert await redis.smembers("{llmgw}:directory:replicas") == {b"m-1", b"asleep"}
    await backend.withdraw([replica])


async def test_clients_ask_the_sentinels_too(redis_watched: Watched):
    async with redis_address.client(redis_watched.url, 2.0) as redis:
        assert await redis.set("k", 1)
    with redis_address.blocking_client(redis_watched.url, 2.0) as redis:
        assert redis.get("k") == b"1"
