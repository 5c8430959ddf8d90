"""Which of a cluster's nodes is believed: on nodes that say whatever a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.redis_cluster import SLOT, Cluster
from tests.gateway.limits.links import FakeRedis, fake_redis, linked, polite
from tests.gateway.redis_faults.servers import free_port

OK, FAIL = "ok", "fail"
OFTEN = 20  # nodes are asked in no order


class Node:
    """
    Attributes:
        state: what it says of the cluster's.
        master: the port of whom it holds for the master of our slot; None for nobody.
        knows: ports of other nodes.
    """

    def __init__(self) -> None:
        self.state = OK
        self.master: int | None = None
        self.knows: list[int] = []
        self.server: FakeRedis

    @property
    def port(self) -> int:
        return self.server.port

    def answer(self, command: list[bytes]) -> bytes:
        if command == [b"CLUSTER", b"INFO"]:
            text = f"cluster_state:{self.state}\r\ncluster_slots_assigned:16384\r\n"
            return b"$%d\r\n%s\r\n" % (len(text), text.encode())
        if command == [b"CLUSTER", b"SLOTS"]:
            ranges = [(SLOT + 1, 16383, self.port, self.knows)]
            ranges += [(0, SLOT, self.master, [])] if self.master else []
            return b"*%d\r\n" % len(ranges) + b"".join(map(_range, ranges))
        return polite(command)


def _range(told: tuple[int, int, int, list[int]]) -> bytes:
    first, last, master, replicas = told
    nodes = [b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n" % port for port in (master, *replicas)]
    return b"*%d\r\n:%d\r\n:%d\r\n%s" % (2 + len(nodes), first, last, b"".join(nodes))


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[Node, Node, Node]]:
    async with AsyncExitStack() as stack:
        made = Node(), Node(), Node()
        for node in made:
            node.server = await stack.enter_async_context(fake_redis(node.answer))
        yield made


def cluster(*nodes: Node) -> Cluster:
    return Cluster([("127.0.0.1", node.port) for node in nodes], {"ssl": False, "protocol": 2})


async def test_one_that_has_lost_the_others_is_not_believed(nodes):
    lost, good, _ = nodes
    lost.state, lost.master, good.master = FAIL, lost.port, good.port
    for _ in range(OFTEN):
        assert await cluster(lost, good).find() == ("127.0.0.1", good.port)


async def test_the_others_that_it_names_are_asked(nodes):
    lost, good, _ = nodes
    lost.state, lost.knows, good.master = FAIL, [free_port(), good.port], good.port
    assert await cluster(lost).find() == ("127.0.0.1", good.port)
    assert await asyncio.to_thread(cluster(lost).find_blocking) == ("127.0.0.1", good.port)


async def test_one_that_knows_nobody_for_our_slot_is_told_of(nodes):
    one, other, _ = nodes
    with pytest.raises(RedisConnectionError, match=f"127.0.0.1:{other.port} says that nobody serves slot {SLOT}"):
        await cluster(one, other).find()
    other.state = FAIL
    with pytest.raises(RedisConnectionError, match=f"127.0.0.1:{other.port} says cluster_state:fail"):
        await cluster(one, other).find()


async def test_nodes_that_were_named_are_asked_when_the_seeds_are_gone(nodes):
    seed, *others = nodes
    ours = cluster(seed)
    seed.knows = [node.port for node in others]
    for node in nodes:
        node.master = others[0].port
    assert await ours.find() == ("127.0.0.1", others[0].port)
    seed.state = FAIL
    for node in others:
        node.master = others[1].port
    for _ in range(OFTEN):
        assert await ours.find() == ("127.0.0.1", others[1].port)


async def test_one_that_is_behind_the_times_does_not_lead_astray_for_good(nodes):
    behind, good, _ = nodes
    behind.master, good.master = free_port(), good.port
    async with linked(f"redis+cluster://{behind.server.address},{good.server.address}?protocol=2"):
        pass
