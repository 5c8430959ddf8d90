"""Answers of another model than the one that was asked."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest

from gateway.settings import Key
from tests.gateway.cache.conftest import whole
from tests.gateway.flight.conftest import STREAM, WHOLE, Gateway, gateways, looked_up, published
from tests.gateway.raw_server import raw_server, sized
from tests.gateway.records import join
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
