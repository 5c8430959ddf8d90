"""The directory's reader on a real Redis."""

import asyncio

import pytest

from gateway.metrics import Metrics
from gateway.routing.directory import PREFIX, Directory
from gateway.routing.replica import Replica
from gateway.settings import Upstream
from tests.gateway.records import join, leave, record
from tests.polling import eventually


@pytest.fixture
async def directory(redis):
    static = Replica.from_upstream(Upstream(model="s", url="http://127.0.0.1:9/base/"), 0)
    directory = Directory([static], redis, "engine-key", Metrics())
    follower = asyncio.create_task(directory.run())
    await eventually(lambda: directory.redis_state == "up")
    yield directory
    follower.cancel()


def replicas(directory: Directory, model: str = "m") -> dict[str, Replica]:
    pool = directory.pool(model)
    return {replica.id: replica for some in pool.replicas.values() for replica in some} if pool else {}


def ids(directory: Directory, model: str = "m") -> set[str]:
    return set(replicas(directory, model))


async def test_follows_replicas_that_come_and_go(directory, redis):
    await join(redis, "m-1")
    await join(redis, "m-2", url="http://10.0.0.2:8001", served_name="internal")
    await eventually(lambda: ids(directory) == {"m-1", "m-2"})
    second = replicas(directory)["m-2"]
    assert (second.origin.host, second.origin.port) == ("10.0.0.2", 8001)
    assert (second.served_name, second.key, second.max_model_len) == ("internal", "engine-key", 4096)
    await leave(redis, "m-1")
    await eventually(lambda: ids(directory) == {"m-2"})


async def test_static_upstreams_stand_beside_it(directory):
    (replica,) = replicas(directory, "s").values()
    assert (replica.origin.authority, replica.base_path, replica.key) == ("127.0.0.1:9", "/base", None)


BAD = [
    "no json",
    "{}",
    "[]",
    b"\xff",
    record("x", version=2),
    record("x", state="confused"),
    record("x", state="starting", url=""),
    record("x", url="ftp://x"),
    record("x", model=["a"]),
    record("x", model=5),
    record("x", max_model_len="long"),
    record("x", weight=0.0),
    record("x", running=10**400),
    record("x", waiting=-1),
]


@pytest.mark.parametrize("id_", [b"bad", b"\xff"])
@pytest.mark.parametrize("bad", BAD)
async def test_a_record_it_cannot_read_is_left_out(directory, redis, id_, bad):
    await redis.set(f"{PREFIX}:replica:".encode() + id_, bad)
    await redis.sadd(f"{PREFIX}:replicas", id_)
    await join(redis, "good")
    await eventually(lambda: ids(directory) == {"good"})
    assert set(directory.models()) == {"m", "s"}
    await leave(redis, "good")
    await join(redis, "next")
    await eventually(lambda: "next" in ids(directory) and "good" not in ids(directory))


async def test_the_last_known_replicas_outlive_redis(directory, redis, redis_server):
    await join(redis, "m-1")
    await eventually(lambda: ids(directory) == {"m-1"})
    redis_server.kill()
    await eventually(lambda: directory.redis_state == "away")
    assert ids(directory) == {"m-1"}
    redis_server.start()  # empty, as after a lost disk
    await eventually(lambda: directory.redis_state == "up")
    assert ids(directory) == {"m-1"}
    await join(redis, "m-2")
    await eventually(lambda: ids(directory) == {"m-1", "m-2"})
    await leave(redis, "m-1")
    await eventually(lambda: ids(directory) == {"m-2"})


@pytest.mark.parametrize("state", ["asleep", "starting", "draining"])
async def test_only_a_ready_replica_is_asked_and_the_others_tell_of_their_model(directory, redis, state):
    await join(redis, "m-1", state=state, url="" if state == "asleep" else "http://127.0.0.1:9000")
    await eventually(lambda: directory.pool("m"))
    pool = directory.pool("m")
    assert (ids(directory), pool.asleep) == (set(), state == "asleep")
    assert (pool.tasks, pool.max_model_len) == ({"chat", "completions"}, 4096)
    await join(redis, "m-2", max_model_len=128, tasks=["chat"])
    await eventually(lambda: ids(directory) == {"m-2"})
    pool = directory.pool("m")
    assert (pool.asleep, pool.tasks, pool.max_model_len) == (False, {"chat"}, 128)
    await join(redis, "m-2", state="draining")
    await eventually(lambda: ids(directory) == set())


async def test_a_model_that_lost_its_replica_is_expected_for_a_moment(directory, redis, monkeypatch):
    monkeypatch.setattr("gateway.routing.directory.REPLACED_S", 2.0)
    await join(redis, "m-1")
    await eventually(lambda: ids(directory))
    await leave(redis, "m-1")
    await eventually(lambda: not ids(directory))
    assert directory.pool("m").tasks == {"chat", "completions"}
    await eventually(lambda: directory.pool("m") is None)
