"""What a worker that stops tells Redis of the answers that it cuts off."""

import asyncio
import hashlib

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.test_reservations import ASK, value
from tests.gateway.raw_server import STREAM_HEAD, chunk, raw_server, token
from tests.polling import eventually

pytestmark = pytest.mark.usefixtures("no_chains_and_skills")
KEY = {"name": "k", "tenant": "t", "hash": f"sha256:{hashlib.sha256(b'sk-1').hexdigest()}"}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_an_answer_that_a_stop_cuts_off_is_settled(redis_server, redis, stream):
    begun = STREAM_HEAD + b"".join(chunk(token(str(n))) for n in range(5))
    async with raw_server(begun) as engine, httpx.AsyncClient(headers={"authorization": "Bearer sk-1"}) as client:
        settings = Settings.load(
            redis_url=redis_server.url,
            keys=[KEY | {"tokens_per_day": 1000, "concurrency": 2}],
            upstreams=[{"model": "m", "url": engine.url}],
        )
        async with served(create_app(settings), lifespan="on") as base:

            async def reserved() -> bool:
                return await value(redis, "{llmgw}:used:*") > 50

            async def linked() -> bool:
                return (await client.get(f"{base}/health/ready")).json()["redis"] == "up"

            await eventually(linked)
            asking = asyncio.create_task(client.post(f"{base}/v1/chat/completions", json=ASK | {"stream": stream}))
            await eventually(reserved)
            await eventually(lambda: engine.requests)
        await asyncio.gather(asking, return_exceptions=True)
    assert await value(redis, "{llmgw}:used:*") < 20
    assert not await redis.keys("{llmgw}:limit:open:*")
