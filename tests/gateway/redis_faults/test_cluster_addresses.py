"""A healthy Redis Cluster by its URL: who is found by whom, what works, and what is said of a wrong URL."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trustme
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from typer.testing import CliRunner

from backend.directory import Record, State, connect
from backend.doorbell import Doorbell
from gateway import redis_address
from gateway.cache.semantic import SemanticIndex
from gateway.cli.main import app
from gateway.limits import usage
from gateway.redis_cluster import TAG, WRONG_URL
from gateway.redis_link import RedisLink
from gateway.routing.shared_breakers import CHANGES, OPEN
from gateway.sessions.store import Sessions, Turn
from tests.gateway.limits.links import answers, linked, running, tls_in_front
from tests.gateway.redis_faults.cluster import Nodes, redis_cluster
from tests.gateway.redis_faults.gateways import SECRET
from tests.gateway.redis_faults.servers import free_port, server
from tests.polling import eventually

SINGLE = "is no node of a Redis Cluster, and its URL begins with redis://"


@pytest.fixture(scope="module")
async def nodes(tmp_path_factory) -> AsyncIterator[Nodes]:
    async with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


async def port_of(link: RedisLink) -> int:
    told = dict(word.split("=", 1) for word in (await link.call("CLIENT", "INFO")).decode().split())
    return int(told["laddr"].rpartition(":")[2])


# Who is found by whom


@pytest.mark.parametrize("seed", range(4))
async def test_any_node_names_the_master(nodes: Nodes, seed):
    url = nodes.url(nodes.all[seed])
    async with linked(url) as link:
        assert await port_of(link) == nodes.owner.port
        assert await link.call("SET", f"{TAG}:k", url) == b"OK"
    async with redis_address.client(url, 2.0) as redis:
        assert await redis.get(f"{TAG}:k") == url.encode()
    with redis_address.blocking_client(url, 2.0) as redis:
        assert redis.get(f"{TAG}:k") == url.encode()


async def test_one_node_of_the_url_is_enough(nodes: Nodes):
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()},127.0.0.1:{nodes.replica.port}"
    async with linked(url):
        pass
    with redis_address.blocking_client(url, 2.0) as redis:
        assert redis.set(f"{TAG}:k", 1)


@pytest.mark.parametrize(
    ("kind", "named"), [("hostname", "localhost"), ("unknown-endpoint", None), ("ip", "127.0.0.1")]
)
async def test_nodes_may_be_named_in_every_way_that_there_is(nodes: Nodes, kind, named):
    for node in nodes.all:
        with node.blocking() as redis:
            redis.config_set("cluster-announce-hostname", "localhost")
            redis.config_set("cluster-preferred-endpoint-type", kind)

    def all_say() -> bool:
        names = set()
        for node in nodes.all:
            with node.blocking() as redis:
                slots = redis.execute_command("CLUSTER", "SLOTS")
            names |= {host and host.decode() for _, _, *told in slots for host, *_ in told}
        return names == {named}

    await eventually(all_say)
    async with linked(nodes.url(*nodes.others)) as link:
        assert await port_of(link) == nodes.owner.port


async def test_over_tls(tmp_path):
    """In front of a node without: the packaged server speaks none. It names the port of what stands in front of it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with tls_in_front(path := str(tmp_path / "redis.sock"), context) as port:
        options = {"unixsocket": path, "cluster-enabled": "yes", "cluster-port": free_port()}
        options |= {"cluster-announce-port": port, "save": ""}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with server(tmp_path / "node", *words) as node:
            with node.blocking() as redis:
                redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            url = f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem"
            async with linked(url) as link:
                assert b"laddr=/" in await link.call("CLIENT", "INFO")  # by way of what stands in front
            async with redis_address.client(url, 2.0) as client:
                assert await client.set(f"{TAG}:k", 1)
            with pytest.raises(RedisConnectionError, match="certificate"):
                await redis_address.client(f"rediss+cluster://127.0.0.1:{port}", 2.0).ping()


# What works on it


async def test_scripts_over_several_keys(nodes: Nodes):
    async with linked(nodes.url()) as link:
        sessions = Sessions(link, 60, 10)
        assert await sessions.open("team", "s") == []
        await sessions.add("team", "s", Turn("question", "answer"))
        assert await sessions.read("team", "s") == [Turn("question", "answer")]
        assert [entry.id for entry in await sessions.list("team")] == ["s"]
        await sessions.delete("team", "s")


async def test_vector_sets(nodes: Nodes):
    async with linked(nodes.url()) as link:
        index = SemanticIndex(link, 60)
        index.add(f"{TAG}:semantic:p", [1.0, 0.0], "question")
        near = await index.nearest(f"{TAG}:semantic:p", [1.0, 0.0])
        assert [found.question for found in near] == ["question"]


async def test_what_is_not_in_a_request_s_way(nodes: Nodes):
    async with redis_address.client(nodes.url(), 2.0) as redis:
        async with redis.pipeline(transaction=True) as both:
            both.set(OPEN, 1)
            both.publish(CHANGES, "a")
            both.hset(f"{usage.PREFIX}:day", "a", 1)
            assert await both.execute() == [True, 0, 1]
        async with redis.pubsub() as changes:
            await changes.subscribe(CHANGES)
            await redis.publish(CHANGES, "word")
            message = await changes.get_message(timeout=5.0)
            while message is None or message["type"] != "message":
                message = await changes.get_message(timeout=5.0)
            assert message["data"] == b"word"


async def test_the_backend_s_record_is_in_a_gateway_s_directory(nodes: Nodes):
    backend = connect(nodes.url())
    record = Record("m-1", State.READY, "m", "http://127.0.0.1:9000", "m", "llamacpp", ("chat",), (), 4096, 4, "r1")
    await backend.publish([record])
    doorbell = Doorbell(nodes.url(), [replace(record, id="asleep", model="sleeper", state=State.ASLEEP)])
    assert not doorbell.rung()
    async with redis_address.client(nodes.url(), 2.0) as redis:
        assert await redis.smembers(f"{TAG}:directory:replicas") == {b"m-1", b"asleep"}
        await redis.set(f"{TAG}:directory:demand:sleeper", 1)
    await eventually(doorbell.rung)
    await backend.withdraw([record])


# What is said where the URL is wrong


@pytest.mark.parametrize("place", range(4))
async def test_a_node_that_is_named_as_a_server_of_its_own_is_one_line(nodes: Nodes, place, caplog):
    link = RedisLink(nodes.all[place].url)
    async with running(link):
        await eventually(lambda: WRONG_URL in caplog.text)
        await asyncio.sleep(0.3)  # some more tries
        assert not await answers(link)
    assert caplog.text.count("no connection to Redis") == 1


async def test_a_server_that_is_no_node_says_so(redis_server, redis, caplog):
    await redis.config_set("port", port := free_port())
    url = f"redis+cluster://127.0.0.1:{port}"
    async with running(RedisLink(url)):
        await eventually(lambda: f"127.0.0.1:{port} {SINGLE}" in caplog.text)
    with pytest.raises(RedisConnectionError, match=SINGLE), redis_address.blocking_client(url, 2.0) as client:
        client.ping()


async def test_nodes_that_nobody_reaches_are_named(caplog):
    ports = [free_port() for _ in range(6)]
    link = RedisLink("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports))
    async with running(link):
        await eventually(lambda: "no node of the Redis Cluster can tell who has our keys" in caplog.text)
        await asyncio.sleep(0.3)  # some more tries
    assert caplog.text.count("no connection to Redis") == 1
    assert "; and 2 more" in caplog.text
    assert sum(f"127.0.0.1:{port} " in caplog.text for port in ports) == 4


async def test_a_wrong_password_is_told_and_not_shown(nodes: Nodes, caplog):
    for node in nodes.all:
        with node.blocking() as redis:
            redis.config_set("requirepass", "right")
            redis.config_set("masterauth", "right")
    try:
        async with running(RedisLink(nodes.url().replace("//", "//:s3cret@"))):
            await eventually(lambda: "invalid username-password pair" in caplog.text)
        async with linked(nodes.url().replace("//", "//:right@")):
            pass
    finally:
        for node in nodes.all:
            with Redis(port=node.port, password="right") as redis:
                redis.config_set("requirepass", "")
                redis.config_set("masterauth", "")
    assert "s3cret" not in caplog.text


@pytest.fixture
def llmgw(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMGW_KEY_SECRET", SECRET)

    async def run(url: str, *arguments: str) -> str:
        monkeypatch.setenv("LLMGW_REDIS_URL", url)
        return (await asyncio.to_thread(CliRunner().invoke, app, arguments)).output.replace("\n", " ")

    return run


async def test_the_commands_say_which_url_to_use(nodes: Nodes, llmgw):
    wrong, right = nodes.others[0].url, nodes.url(nodes.others[0])
    assert WRONG_URL in await llmgw(wrong, "keys", "list")
    assert WRONG_URL in await llmgw(wrong, "usage")
    assert "key (shown only now)" in await llmgw(right, "keys", "create", "--name", "alice", "--tenant", "team")
    assert "alice" in await llmgw(right, "keys", "list")
    assert "requests" in await llmgw(right, "usage")


async def test_doctor_says_what_is_wrong(nodes: Nodes, llmgw):
    assert "yours, as `redis_url` says; it answers" in await llmgw(nodes.url(), "doctor")
    assert f"no gateway can use it: {WRONG_URL}" in await llmgw(nodes.owner.url, "doctor")
    gone = f"127.0.0.1:{free_port()}"
    told = await llmgw(f"redis+cluster://{gone}", "doctor")
    assert f"no gateway can use it: no node of the Redis Cluster can tell who has our keys: {gone} " in told
