"""What workers write to each other, with a test in the place of one of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio.client import PubSub

from gateway.cache.claim import Claim
from tests.gateway.flight.conftest import STREAM, WHOLE
from tests.polling import eventually


@asynccontextmanager
async def _inbox(redis, worker: str) -> AsyncIterator[PubSub]:
    async with redis.pubsub(ignore_subscribe_messages=True) as inbox:
        await inbox.subscribe(f"{{llmgw}}:mail:{worker}")
        await eventually(lambda: _open(redis, worker))
        yield inbox


async def _open(redis, worker: str) -> bool:
    return bool(await redis.pubsub_channels(f"{{llmgw}}:mail:{worker}"))


async def _letter(inbox: PubSub) -> list:
    letters: list[bytes] = []

    async def arrived() -> bool:
        message = await inbox.get_message(ignore_subscribe_messages=True, timeout=0)
        letters.extend([message["data"]] if message else [])
        return bool(letters)

    await eventually(arrived)
    return json.loads(letters[0].partition(b"\n")[0])


async def test_a_worker_that_says_nothing_is_not_waited_for(pair, engine, redis, monkeypatch):
    """As when Redis, or the worker's machine, stops just then."""
    monkeypatch.setattr("gateway.completion.remote_flight.FIRST_WORD_S", 0.2)
    monkeypatch.setattr("gateway.completion.flight_watch.SILENT_S", 3600.0)
    engine.go.set()
    await pair[0].ask(**STREAM).done()
    key = (await redis.keys("{llmgw}:cache:*"))[0].decode()
    claim = Claim.of("deaf", 0, stream=True, usage=False)
    async with _inbox(redis, "deaf") as inbox:
        await redis.set(key, claim.data)
        asker = pair[0].ask(**STREAM)
        kind, asked, name, _, have, _ = await _letter(inbox)
        assert (kind, asked, name, have) == ("follow", key, claim.name, 0)
        await eventually(asker.began.is_set)
        assert (await asker.done(), asker.cache) == (engine.text(2), "miss")
        letter = await _letter(inbox)
        while letter[4] is not None:  # it has asked again
            letter = await _letter(inbox)


async def test_a_worker_that_has_nothing_yet_says_so(pair, engine, redis):
    first = pair[0].ask(**WHOLE)
    await eventually(lambda: engine.asked)
    key = (await redis.keys("{llmgw}:cache:*"))[0].decode()
    claim = Claim.parse(await redis.get(key))
    async with _inbox(redis, "asks") as inbox:
        await redis.publish(f"{{llmgw}}:mail:{claim.worker}", json.dumps(["follow", key, claim.name, "asks", 0, True]))
        assert await _letter(inbox) == ["news", key, claim.name, 0, 0, False, None]
    engine.go.set()
    await first.done()
