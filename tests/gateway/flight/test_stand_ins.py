"""Answers of another model than the one that was asked, or of another revision of it."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from gateway.settings import Key
from tests.gateway.cache.conftest import whole
from tests.gateway.flight.conftest import STREAM, WHOLE, Gateway, gateways, looked_up, published, running_engine
from tests.gateway.raw_server import raw_server, sized
from tests.gateway.records import join, leave
from tests.polling import eventually

WHERE = pytest.mark.parametrize("where", [0, 1], ids=["the same worker", "another worker"])
KINDS = pytest.mark.parametrize("fields", [STREAM, WHOLE], ids=["stream", "whole"])


@pytest.fixture
async def failing(engine, redis, redis_server) -> AsyncIterator[list[Gateway]]:
    """Gateways whose model fails, and has another that stands in: `engine`, which not all keys may use."""
    keys = tuple(
        Key(name=name, tenant="t", models=models, hash=f"sha256:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}")
        for name, models in (("both", ["m", "other"]), ("one", ["m"]))
    )
    await join(redis, "r", model="other", url=engine.url)
    async with raw_server(sized(b'{"error":{"message":"broken"}}', "500 Internal Server Error")) as broken:
        async with gateways(broken, redis, redis_server.url, keys=keys, fallbacks={"m": ["other"]}) as pair:
            for gateway in pair:
                await eventually(lambda gateway=gateway: _knows(gateway))
            yield pair


def _as(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{key}"}


async def _knows(gateway: Gateway) -> bool:
    return "other" in (await gateway.client.get("/v1/models", headers=_as("both"))).text


@WHERE
@KINDS
@pytest.mark.parametrize("key", ["one", "both"], ids=["who may not use it", "who may use it"])
async def test_an_answer_of_the_model_that_stands_in_is_nobody_elses(failing, engine, redis, where, fields, key):
    first = failing[0].ask(_as("both"), **fields)
    await eventually(lambda: engine.asked)
    other = failing[where].ask(_as(key), **fields)
    await looked_up(redis, 2)
    if where and fields is WHOLE:
        await eventually(lambda: _heard(redis))
    engine.go.set()
    await first.done()
    assert (first.status, first.headers["x-llmgw-fallback-model"]) == (200, "other")
    text = await other.done()
    if key == "one":
        assert (other.status, json.loads(text)["error"]["code"]) == (502, "upstream_failed")
    else:
        assert (other.cache, other.headers["x-llmgw-fallback-model"]) == ("miss", "other")
        assert text == engine.text(2) if fields is STREAM else json.loads(text) == whole(2) | {"padding": ""}
    await eventually(lambda: _unclaimed(redis))


async def _heard(redis) -> bool:
    return await published(redis) >= 2


async def _unclaimed(redis) -> bool:
    return await redis.keys("{llmgw}:cache:*") == []


async def test_an_answer_is_not_kept_for_a_revision_that_did_not_give_it(engine, redis, redis_server):
    """Who waits for a model that is updated in place gets the new one's, and so does who follows."""
    async with running_engine() as old, gateways(old, redis, redis_server.url, replica_wait_s=30) as pair:
        asked = {"model": "updated", **STREAM}
        await join(redis, "old", model="updated", url=old.url, revision="1")
        await _has_replicas(pair, 1)
        await leave(redis, "old")
        await _has_replicas(pair, 0)
        askers = [pair[0].ask(**asked)]
        await looked_up(redis, 1)
        askers += [pair[0].ask(**asked), pair[1].ask(**asked)]
        await looked_up(redis, 3)
        await eventually(lambda: _heard(redis))
        await join(redis, "new", model="updated", url=engine.url, revision="2")
        for asker in askers:
            await asker.began.wait()
        await eventually(lambda: _unclaimed(redis))
        engine.go.set()
        assert [await asker.done() for asker in askers] == [engine.text(1)] * 3
        await leave(redis, "new")
        await _has_replicas(pair, 0)
        await join(redis, "old", model="updated", url=old.url, revision="1")
        await _has_replicas(pair, 1)
        old.padding = "of the old one"
        old.go.set()
        again = pair[0].ask(**asked)
        assert (await again.done(), again.cache) == (old.text(1), "miss")


async def _has_replicas(pair: list[Gateway], count: int) -> None:
    async def so() -> bool:
        texts = [(await gateway.client.get("/metrics")).text for gateway in pair]
        return all(text.count('llmgw_replicas{model="updated"} 1.0') == count for text in texts)

    await eventually(so)
