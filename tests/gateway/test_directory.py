"""The directory's reader on a real Redis."""

import asyncio
import json

import pytest

from gateway.metrics import Metrics
from gateway.routing.directory import PREFIX, Directory
from gateway.routing.replica import Replica
from gateway.settings import Upstream
from tests.polling import eventually


def record(id_: str, **changes: object) -> str:
    return json.dumps(
        {
            "version": 1,
            "id": id_,
            "model": "m",
            "url": "http://127.0.0.1:9000",
            "served_name": "m",
            "engine": "llamacpp",
            "tasks": ["chat", "completions"],
            "capabilities": [],
            "max_model_len": 4096,
            "max_num_seqs": 4,
            "running": 0,
            "waiting": 0,
        }
        | changes
    )


async def join(redis, id_: str, **changes: object) -> None:
    await redis.set(f"{PREFIX}:replica:{id_}", record(id_, **changes), ex=10)
    await redis.sadd(f"{PREFIX}:replicas", id_)
    await redis.publish(f"{PREFIX}:changes", id_)


async def leave(redis, id_: str) -> None:
    await redis.delete(f"{PREFIX}:replica:{id_}")
    await redis.srem(f"{PREFIX}:replicas", id_)
    await redis.publish(f"{PREFIX}:changes", id_)


@pytest.fixture
async def directory(redis):
    static = Replica.from_upstream(Upstream(model="s", url="http://127.0.0.1:9/base/"), 0)
    directory = Directory([static], redis, "engine-key", Metrics())
    follower = asyncio.create_task(directory.run())
    await eventually(lambda: directory.redis_state == "up")
    yield directory
    follower.cancel()


def ids(directory: Directory, model: str = "m") -> set[str]:
    return {replica.id for replica in directory.pool(model)}


async def test_follows_replicas_that_come_and_go(directory, redis):
    await join(redis, "m-1")
    await join(redis, "m-2", url="http://10.0.0.2:8001", served_name="internal")
    await eventually(lambda: ids(directory) == {"m-1", "m-2"})
    second = next(replica for replica in directory.pool("m") if replica.id == "m-2")
    assert (second.origin.host, second.origin.port) == ("10.0.0.2", 8001)
    assert (second.served_name, second.key, second.max_model_len) == ("internal", "engine-key", 4096)
    await leave(redis, "m-1")
    await eventually(lambda: ids(directory) == {"m-2"})


async def test_static_upstreams_stand_beside_it(directory):
    (replica,) = directory.pool("s")
    assert (replica.origin.authority, replica.base_path, replica.key) == ("127.0.0.1:9", "/base", None)


BAD = [
    "no json",
    "{}",
    "[]",
    b"\xff",
    record("x", version=2),
    record("x", url="ftp://x"),
    record("x", model=["a"]),
    record("x", model=5),
    record("x", max_model_len="long"),
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
