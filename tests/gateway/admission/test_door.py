"""Admission as clients meet it, in front of an engine whose time is counted in ticks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.admission.engine import Engine, running
from tests.gateway.doors import served
from tests.gateway.records import join
from tests.polling import eventually

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PLACES = 2  # one at the engine, and one that waits there


@asynccontextmanager
async def door(engine: Engine, others: Mapping[str, str] = {}, **settings) -> AsyncIterator[httpx.AsyncClient]:
    urls = {"m": engine.url, **others}
    upstreams = [{"model": model, "url": url, "max_concurrency": 1} for model, url in urls.items()]
    app = create_app(Settings.load(upstreams=upstreams, workers=1, **settings))
    async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


def ask(client: httpx.AsyncClient, count: int = 1) -> list[asyncio.Task[httpx.Response]]:
    return [asyncio.create_task(client.post("/v1/chat/completions", json=ASK)) for _ in range(count)]


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def depth(client: httpx.AsyncClient) -> float:
    return await metric(client, "llmgw_queue_depth{")


async def until_depth(client: httpx.AsyncClient, expected: int) -> None:
    async def so() -> bool:
        return await depth(client) == expected

    await eventually(so)


async def finish(engine: Engine, asked: list[asyncio.Task[httpx.Response]]) -> list[httpx.Response]:
    async def all_done() -> bool:
        engine.tick()
        return all(task.done() for task in asked)

    await eventually(all_done)
    return [task.result() for task in asked]


async def test_what_the_engine_cannot_work_on_waits_in_the_gateway():
    async with running(Engine(1)) as engine, door(engine) as client:
        asked = ask(client, 5)
        await until_depth(client, 3)
        assert engine.open == PLACES
        answers = await finish(engine, asked)
        assert {answer.status_code for answer in answers} == {200}
        assert sum("x-llmgw-queue-ms" in answer.headers for answer in answers) == 3
        await until_depth(client, 0)
        assert engine.served == 5


async def test_a_full_queue_is_a_503_that_says_when_to_come_back():
    async with running(Engine(1)) as engine, door(engine, queue_max_requests=0) as client:
        asked = ask(client, PLACES)
        await eventually(lambda: engine.open == PLACES)
        (refused,) = await asyncio.gather(*ask(client))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["x-should-retry"] == "true"
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("overloaded_error", "overloaded")
        assert "too many requests waiting" in error["message"]
        assert await metric(client, 'llmgw_queue_refused_total{model="m",reason="full"}') == 1
        await finish(engine, asked)


async def test_what_finds_no_place_goes_to_the_model_that_stands_in():
    async with running(Engine(1)) as engine, running(Engine(1)) as spare:
        more = {"queue_max_requests": 0, "fallbacks": {"m": ["other"]}, "others": {"other": spare.url}}
        async with door(engine, **more) as client:
            asked = ask(client, PLACES)
            await eventually(lambda: engine.open == PLACES)
            (answer,) = await finish(spare, ask(client))
            assert (answer.status_code, answer.headers["x-llmgw-fallback-model"]) == (200, "other")
            await finish(engine, asked)


@pytest.mark.parametrize("fallback", ["other", "gone"])
async def test_who_has_waited_is_answered_by_the_model_itself(fallback):
    async with running(Engine(1)) as engine, running(Engine(1)) as spare:
        async with door(engine, fallbacks={"m": [fallback]}, others={"other": spare.url}) as client:
            asked = ask(client, PLACES)
            await eventually(lambda: engine.open == PLACES)
            asked += ask(client)
            await until_depth(client, 1)
            answers = await finish(engine, asked)
            assert [answer.status_code for answer in answers] == [200] * 3
            assert engine.served == 3


async def test_who_waits_too_long_is_a_503():
    async with running(Engine(1)) as engine, door(engine, queue_wait_s=0.2) as client:
        asked = ask(client, PLACES)
        await eventually(lambda: engine.open == PLACES)
        (refused,) = await asyncio.gather(*ask(client))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert await metric(client, 'llmgw_queue_refused_total{model="m",reason="late"}') == 1
        assert len(engine.arrived) == PLACES
        await finish(engine, asked)


async def test_a_client_that_leaves_the_queue_is_never_generated_for():
    async with running(Engine(1)) as engine, door(engine) as client:
        asked = ask(client, PLACES)
        await eventually(lambda: engine.open == PLACES)
        gone = ask(client)
        await until_depth(client, 1)
        gone[0].cancel()
        await until_depth(client, 0)
        await finish(engine, asked)
        (answer,) = await finish(engine, ask(client))
        assert (answer.status_code, len(engine.arrived)) == (200, PLACES + 1)


async def test_a_client_that_leaves_the_engine_makes_room_there():
    async with running(Engine(1)) as engine, door(engine) as client:
        leaving = ask(client, PLACES)
        await eventually(lambda: engine.open == PLACES)
        asked = ask(client, PLACES)
        await until_depth(client, PLACES)
        for task in leaving:
            task.cancel()
        await until_depth(client, 0)
        await eventually(lambda: engine.open == PLACES)
        assert {answer.status_code for answer in await finish(engine, asked)} == {200}


async def test_a_request_that_fails_leaves_its_place():
    async with running(Engine(1, room=0)) as engine, door(engine, queue_max_requests=0) as client:
        for _ in range(PLACES * 2):
            (answer,) = await asyncio.gather(*ask(client))
            assert answer.status_code == 429


async def test_the_directory_tells_how_much_an_engine_works_on(redis, redis_server):
    async with running(Engine(8)) as first, running(Engine(8)) as second:
        await join(redis, "m-1", url=first.url, max_num_seqs=1)
        app = create_app(Settings.load(redis_url=redis_server.url, workers=1, cache_ttl_s=0))
        async with (
            served(app, lifespan="on") as url,
            httpx.AsyncClient(base_url=url, timeout=60) as client,
        ):

            async def known() -> bool:
                return bool((await client.get("/v1/models")).json()["data"])

            await eventually(known)
            asked = ask(client, 12)
            await until_depth(client, 12 - PLACES)
            await join(redis, "m-2", url=second.url, max_num_seqs=7)
            await until_depth(client, 12 - 9)
            assert first.open + second.open == 9
            first_done = asyncio.create_task(finish(first, asked))
            await finish(second, asked)
            assert {answer.status_code for answer in await first_done} == {200}
