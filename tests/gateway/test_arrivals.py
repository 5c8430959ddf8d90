"""Requests for a model that has no replica yet, through the door, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.app import create_app
from gateway.routing.directory import PREFIX
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.raw_server import raw_server, sized
from tests.gateway.records import join, leave
from tests.polling import eventually

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
DEMAND = f"{PREFIX}:demand:m"


@asynccontextmanager
async def running(**settings: object) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings.load(**settings))
    async with served(app, lifespan="on") as base, httpx.AsyncClient(base_url=base, timeout=30) as client:
        yield client


@pytest.fixture
async def gateway(redis_server):
    async with running(redis_url=redis_server.url, replica_wait_s=20) as client:
        yield client


async def known(gateway: httpx.AsyncClient) -> bool:
    return bool((await gateway.get("/v1/models")).json()["data"])


async def waiting(gateway: httpx.AsyncClient) -> bool:
    return 'llmgw_requests_waiting{model="m"} 1.0' in (await gateway.get("/metrics")).text


def ask(gateway: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(gateway.post("/v1/chat/completions", json=ASK))


async def test_a_request_wakes_a_model_that_sleeps_and_is_answered_by_it(gateway, redis):
    await join(redis, "m-asleep", state="asleep", url="")
    await eventually(lambda: known(gateway))
    assert await redis.get(DEMAND) is None
    request = ask(gateway)
    async with raw_server(sized(b'{"id":"c-1","choices":[]}')) as engine:
        await eventually(lambda: redis.get(DEMAND))
        assert await waiting(gateway)
        await join(redis, "m-1", state="starting", url=engine.url)
        await asyncio.sleep(0.2)
        assert not engine.requests
        await join(redis, "m-1", url=engine.url)
        answer = await request
    assert (answer.status_code, answer.json()["id"]) == (200, "c-1")
    assert not await waiting(gateway)


async def test_a_model_between_two_replicas_keeps_its_requests(gateway, redis):
    async with raw_server(sized(b'{"id":"c-2","choices":[]}')) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: known(gateway))
        await join(redis, "m-1", state="draining", url=engine.url)
        request = ask(gateway)
        await eventually(lambda: waiting(gateway))
        await leave(redis, "m-1")
        await join(redis, "m-2", url=engine.url)
        assert (await request).json()["id"] == "c-2"


async def test_a_model_that_does_not_come_in_time_is_a_503_that_says_so(redis_server, redis):
    async with running(redis_url=redis_server.url, replica_wait_s=0.5) as client:
        await join(redis, "m-asleep", state="asleep", url="")
        await eventually(lambda: known(client))
        answer = await client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["error"] == {
        "message": "The model 'm' is starting and was not there within 0.5 s. Please try again.",
        "type": "overloaded_error",
        "param": None,
        "code": "model_starting",
    }


async def test_a_model_that_is_given_up_is_not_waited_for(gateway, redis, monkeypatch):
    monkeypatch.setattr("gateway.routing.directory.REPLACED_S", 1.0)
    await join(redis, "m-1", state="starting")
    await eventually(lambda: known(gateway))
    request = ask(gateway)
    await eventually(lambda: waiting(gateway))
    await leave(redis, "m-1")
    answer = await request
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")


async def test_the_demand_ends_with_the_client_that_waited(gateway, redis, monkeypatch):
    monkeypatch.setattr("gateway.routing.arrivals.EXPIRY_S", 0.9)  # of which it tells the demand each third
    await join(redis, "m-asleep", state="asleep", url="")
    await eventually(lambda: known(gateway))
    request = ask(gateway)
    await eventually(lambda: waiting(gateway))
    request.cancel()

    async def left() -> bool:
        return not await waiting(gateway)

    await eventually(left)
    await redis.delete(DEMAND)
    await asyncio.sleep(1.2)
    assert await redis.get(DEMAND) is None


async def test_what_the_model_does_not_do_is_refused_before_it_is_woken(gateway, redis):
    await join(redis, "m-asleep", state="asleep", url="")
    await eventually(lambda: known(gateway))
    answer = await gateway.post("/v1/embeddings", json={"model": "m", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    long = {"messages": [{"role": "user", "content": "word " * 5000}], "max_tokens": 5000}
    answer = await gateway.post("/v1/chat/completions", json=ASK | long)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert await redis.get(DEMAND) is None


async def test_a_sleeping_model_is_ready_and_a_starting_one_is_not(redis_server, redis):
    async def ready() -> bool:
        return (await client.get("/health/ready")).is_success

    async with running(redis_url=redis_server.url, models=("m",)) as client:
        await join(redis, "m-1", state="starting")
        await eventually(lambda: known(client))
        assert not await ready()
        await leave(redis, "m-1")
        await join(redis, "m-asleep", state="asleep", url="")
        await eventually(ready)
