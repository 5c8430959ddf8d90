import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from backend.directory import EXPIRY_S, NullDirectory, Record, State, connect
from backend.doorbell import Doorbell
from tests.conftest import RedisServer
from tests.repeating_redis import PASSWORD, repeating_redis

RECORD = Record(
    id="m-1",
    state=State.READY,
    model="m",
    url="http://127.0.0.1:4711",
    served_name="m",
    engine="llamacpp",
    tasks=("chat", "completions"),
    capabilities=("continue",),
    max_model_len=128,
    max_num_seqs=4,
    revision="r1",
)
KEY = "{llmgw}:directory:replica:m-1"
IDS = "{llmgw}:directory:replicas"
CHANGES = "{llmgw}:directory:changes"


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def test_a_replica_comes_lives_and_goes(redis: Redis, redis_url: str) -> None:
    directory = connect(redis_url)
    async with redis.pubsub() as changes:
        await changes.subscribe(CHANGES)
        await directory.publish([replace(RECORD, state=State.STARTING)])
        await directory.publish([RECORD])
        await directory.publish([replace(RECORD, running=2, waiting=1, kv_cache=0.5, measured_at=7.0)])
        assert json.loads(await redis.get(KEY)) == {
            "version": 1,
            "id": "m-1",
            "state": "ready",
            "model": "m",
            "url": "http://127.0.0.1:4711",
            "served_name": "m",
            "engine": "llamacpp",
            "tasks": ["chat", "completions"],
            "capabilities": ["continue"],
            "max_model_len": 128,
            "max_num_seqs": 4,
            "revision": "r1",
            "weight": 1.0,
            "priority": 0,
            "running": 2,
            "waiting": 1,
            "kv_cache": 0.5,
            "measured_at": 7.0,
        }
        assert 0 < await redis.ttl(KEY) <= EXPIRY_S
        assert await redis.smembers(IDS) == {"m-1"}
        await directory.withdraw([RECORD])
        assert await redis.get(KEY) is None
        assert await redis.smembers(IDS) == set()
        await redis.publish(CHANGES, "end")
        told = [message["data"] async for message in _until_end(changes)]
    # One word for the coming, one for the new state, none for the heartbeat, one for the going.
    assert told == ["m-1"] * 3


async def _until_end(changes: "object") -> AsyncIterator[dict[str, str]]:
    async for message in changes.listen():  # type: ignore[attr-defined]
        if message["data"] == "end":
            return
        if message["type"] == "message":
            yield message


async def test_a_record_that_was_lost_is_announced_anew(redis: Redis, redis_url: str) -> None:
    directory = connect(redis_url)
    await directory.publish([RECORD])
    await redis.flushall()
    async with redis.pubsub() as changes:
        await changes.subscribe(CHANGES)
        await directory.publish([RECORD])
        await redis.publish(CHANGES, "end")
        assert [message["data"] async for message in _until_end(changes)] == ["m-1"]
    assert await redis.smembers(IDS) == {"m-1"}
    await directory.withdraw([RECORD])


async def test_a_record_whose_id_is_not_in_the_set_is_announced(redis: Redis, redis_url: str) -> None:
    """As after a first heartbeat whose answer was lost: Redis has its record, and nobody finds it."""
    await redis.set(KEY, json.dumps({"state": "ready"}))
    directory = connect(redis_url)
    async with redis.pubsub() as changes:
        await changes.subscribe(CHANGES)
        await directory.publish([RECORD])
        await directory.publish([RECORD])
        await redis.publish(CHANGES, "end")
        assert [message["data"] async for message in _until_end(changes)] == ["m-1"]
    assert await redis.smembers(IDS) == {"m-1"}
    await directory.withdraw([RECORD])


async def test_an_id_that_is_no_text_keeps_nobody_out(redis: Redis, redis_url: str) -> None:
    await redis.sadd(IDS, b"\xff")
    directory = connect(redis_url)
    await directory.publish([RECORD])
    assert await redis.sismember(IDS, "m-1")
    await directory.withdraw([RECORD])


async def test_no_log_repeats_the_password_of_redis(caplog: pytest.LogCaptureFixture) -> None:
    async with repeating_redis() as url:
        directory = connect(url)
        await directory.publish([RECORD])
        await directory.withdraw([RECORD])
        await asyncio.to_thread(Doorbell(url, [RECORD]).rung)
    assert len(caplog.records) == 3
    assert PASSWORD not in caplog.text


async def test_the_ids_of_replicas_that_were_killed_are_swept(redis: Redis, redis_url: str) -> None:
    await redis.sadd(IDS, "m-killed")
    directory = connect(redis_url)
    await directory.publish([RECORD])
    assert await redis.smembers(IDS) == {"m-1"}
    await directory.withdraw([RECORD])


async def test_a_redis_that_goes_and_comes_is_one_line_each(
    redis_server: RedisServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    directory = connect(redis_server.url)
    await directory.publish([RECORD])
    redis_server.kill()
    with caplog.at_level(logging.INFO, logger="backend.directory"):
        await directory.publish([RECORD])
        await directory.publish([RECORD])
        redis_server.start()
        await directory.publish([RECORD])
        await directory.publish([RECORD])
        assert await redis.smembers(IDS) == {"m-1"}
        redis_server.kill()
        await directory.withdraw([RECORD])
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == 3
    assert "away" in words[0]
    assert "back" in words[1]
    assert "could not leave" in words[2]


async def test_without_a_redis_nobody_is_told() -> None:
    directory = connect(None)
    assert isinstance(directory, NullDirectory)
    await directory.publish([RECORD])
    await directory.withdraw([RECORD])
