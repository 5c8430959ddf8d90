"""A Redis Cluster whose masters die, are demoted and give our slot away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import redis_address
from gateway.keys.stored import KeyStore
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink
from tests.gateway.limits.links import linked, running, stopped
from tests.gateway.redis_faults.cluster import Nodes, redis_cluster
from tests.gateway.redis_faults.gateways import PARTS, SECRET, Gateway, create_key, gateway, told
from tests.polling import eventually


@pytest.fixture
async def nodes(tmp_path) -> AsyncIterator[Nodes]:
    async with redis_cluster(tmp_path) as nodes:
        yield nodes


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Gateway, Gateway]]:
    key = create_key(url)
    async with gateway(url, key) as one, gateway(url, key) as other:
        for each in (one, other):
            await each.settles(PARTS)
        yield one, other


async def counted_together(url: str, one: Gateway, other: Gateway, name: str) -> bool:
    """Whether what one gateway grants is missing at the other, for a key that nobody has used."""
    with redis_address.blocking_client(url, timeout_s=5) as redis:
        key = KeyStore(redis, SECRET.encode()).create(name=name, tenant="team", requests_per_minute=2)[1]
    headers, body = {"authorization": f"Bearer {key}"}, {"model": "m", "messages": [{"role": "user", "content": name}]}

    async def known() -> bool:
        return all([(await each.client.get("/v1/models", headers=headers)).is_success for each in (one, other)])

    await eventually(known)
    answers = [await each.client.post("/v1/chat/completions", json=body, headers=headers) for each in (one, one, other)]
    return [answer.status_code for answer in answers] == [200, 200, 429]


def check_lines(lines: list[str], gateways: int) -> None:
    """Each gateway has said each once, the bad news and the good."""
    assert {line: times for line, times in Counter(lines).items() if times > gateways} == {}
    assert {"lost the connection to Redis", "connected to Redis"} <= set(lines)


async def until(enough: asyncio.Event, busy: Gateway) -> None:
    while not enough.is_set():
        await busy.ask()


async def test_traffic_goes_on_over_the_death_of_the_master(nodes: Nodes, caplog):
    """The only node that the URL names is the one that dies."""
    caplog.set_level("INFO", "gateway")
    url = nodes.url(nodes.owner)
    async with two(url) as (one, other):
        assert await counted_together(url, one, other, "before")
        await eventually(nodes.replicated)
        caplog.clear()
        enough = asyncio.Event()
        traffic = [asyncio.create_task(until(enough, each)) for each in (one, other)]
        nodes.owner.kill()
        await eventually(lambda: nodes.is_master(nodes.replica), within=30)
        enough.set()
        await asyncio.gather(*traffic)
        for each in (one, other):
            await each.settles(PARTS)
        check_lines(told(caplog)(), 2)
        assert await counted_together(nodes.url(nodes.replica), one, other, "after")


async def test_a_master_that_hangs_is_not_waited_for(nodes: Nodes, times, caplog):
    """It does not close a connection. When it goes on, it is a replica and knows it too late."""
    caplog.set_level("INFO", "gateway")
    url = nodes.url()
    times(TIMEOUT=0.5, STALLED=1.0, CONNECT=2.0)
    async with two(url) as (one, other):
        await eventually(nodes.replicated)
        caplog.clear()
        with nodes.owner.blocking() as redis:
            pid = redis.info("server")["process_id"]
        with stopped(pid) as go_on:
            for _ in range(3):  # the first of them waits
                await one.ask()
                await other.ask()
            await eventually(lambda: told(caplog)().count("lost the connection to Redis") == 2)
            await eventually(lambda: nodes.is_master(nodes.replica), within=30)
            times(TIMEOUT=10.0)
            for each in (one, other):
                await each.settles(PARTS)
            go_on()
            for each in (one, other):
                await each.settles(PARTS)
            assert await counted_together(url, one, other, "after")
        assert "connected to Redis" in told(caplog)()


async def test_clients_ask_again_where_another_node_is_the_master_now(nodes: Nodes):
    async with redis_address.client(nodes.url(), 2.0) as redis:
        with redis_address.blocking_client(nodes.url(), 2.0) as waiting:
            assert await redis.set(f"{TAG}:k", 1)
            assert waiting.get(f"{TAG}:k") == b"1"
            await eventually(nodes.fails_over)
            await eventually(lambda: nodes.agree_on(nodes.replica), within=30)
            assert waiting.set(f"{TAG}:k", 2)
            async with redis.pipeline(transaction=True) as both:
                both.get(f"{TAG}:k")
                both.set(f"{TAG}:k", 3)
                assert await both.execute() == [b"2", True]


async def test_a_master_that_is_demoted_is_left_by_all_connections(nodes: Nodes, caplog):
    """It goes on answering, and carries words between those that are connected to it."""
    caplog.set_level("INFO", "gateway")
    url = nodes.url(*nodes.others)
    async with two(url) as (one, other):
        caplog.clear()
        await eventually(nodes.fails_over)
        await eventually(lambda: nodes.is_master(nodes.replica), within=30)
        for each in (one, other):
            await each.settles(PARTS)
        check_lines(told(caplog)(), 2)
        assert await counted_together(url, one, other, "after")

        def listened_to() -> list[int]:
            counts = []
            for node in (nodes.owner, nodes.replica):
                with node.blocking() as redis:
                    counts.append(sum(count for _, count in redis.pubsub_numsub(*redis.pubsub_channels())))
            return counts

        await eventually(lambda: listened_to()[0] == 0 and listened_to()[1] == 2 * 4)


async def test_the_slot_is_followed_to_another_master(nodes: Nodes, caplog):
    caplog.set_level("INFO", "gateway")
    target = nodes.others[0]
    async with two(nodes.url()) as (one, other):
        caplog.clear()
        nodes.begin_move(nodes.owner, target)
        for _ in range(5):
            await one.ask()
        nodes.end_move(nodes.owner, target)
        for each in (one, other):
            await each.settles(PARTS)
        check_lines(told(caplog)(), 2)
        assert await counted_together(nodes.url(), one, other, "after")
        assert nodes.is_master(target)


async def test_a_cluster_without_a_majority_is_one_line_and_comes_back(nodes: Nodes, caplog):
    for node in nodes.others:
        node.kill()
    left = (nodes.owner, nodes.replica)
    await eventually(lambda: all("cluster_state:fail" in nodes.info(node) for node in left))
    link = RedisLink(nodes.url())
    async with running(link):
        await eventually(lambda: "cluster_state:fail" in caplog.text)
        await asyncio.sleep(0.3)  # some more tries
        assert caplog.text.count("no connection to Redis") == 1
        for node in nodes.others:
            node.start()
        async with linked(nodes.url()):
            pass
