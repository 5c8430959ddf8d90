"""Limits as clients meet them: through every door, with OpenAI's SDK, and while Redis is away."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import openai
import pytest

from gateway import redis_link
from gateway.app import create_app
from gateway.server.bounds import Bounds
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.clocks import SECOND_US
from tests.gateway.limits.links import pid_of, stopped
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, RawServer, chunk, raw_server, sized, token
from tests.polling import eventually

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@dataclass
class Door:
    """A gateway with keys, and the engine behind it."""

    base: str
    engine: RawServer

    def http(self, key: str = "alice") -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.base, headers={"authorization": f"Bearer sk-{key}"}, timeout=20)

    async def post(self, path: str, body: object, key: str = "alice") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http(key) as client:
            return await client.post(path, content=content, headers={"content-type": "application/json"})

    async def statuses(self, count: int, path: str = CHAT, body: object = BODY, key: str = "alice") -> list[int]:
        return [(await self.post(path, body, key)).status_code for _ in range(count)]

    async def metric(self, name: str) -> float:
        async with self.http() as client:
            lines = (await client.get("/metrics")).text.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def key(name: str, **values: object) -> dict[str, object]:
    return {
        "name": name,
        "tenant": "team",
        "hash": f"sha256:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}",
    } | values


@asynccontextmanager
async def gateway(redis_url: str | None, caplog, limit: int | None = 2, **values: object) -> AsyncIterator[Door]:
    caplog.set_level("INFO", redis_link.__name__)
    caplog.clear()
    answer = sized(json.dumps(ANSWER).encode())
    async with raw_server(values.pop("answer", answer)) as engine:
        upstream = {"model": "m", "url": engine.url, "max_model_len": 100}
        keys = [key("alice", requests_per_minute=limit), key("bob", requests_per_minute=limit), key("free")]
        settings = Settings.load(upstreams=[upstream], redis_url=redis_url, keys=keys, **({"workers": 1} | values))
        app = create_app(settings)
        async with app.router.lifespan_context(app), served(app, Bounds.of(settings)) as base:
            await eventually(lambda: redis_url is None or "connected to Redis" in caplog.text)
            yield Door(base, engine)


@pytest.fixture
async def door(redis_server, caplog) -> AsyncIterator[Door]:
    async with gateway(redis_server.url, caplog) as door:
        yield door


async def test_the_third_request_of_two_a_minute_is_a_429_in_openai_s_form(door):
    assert await door.statuses(2) == [200, 200]
    answer = await door.post(CHAT, BODY)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"], error["param"]) == (
        429, "rate_limit_error", "rate_limit_exceeded", None,
    )  # fmt: skip
    assert error["message"].startswith("This key may make 2 requests per minute; try again in ")
    headers = answer.headers
    assert headers["content-type"] == "application/json"
    assert 40_000 < int(headers["retry-after-ms"]) <= 61_000
    assert 40 <= int(headers["retry-after"]) <= 61
    assert headers["x-should-retry"] == "true"
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert headers["x-request-id"]
    assert len(door.engine.requests) == 2
    assert await door.metric("llmgw_limits_alone_total") == 0


async def test_other_keys_go_on(door):
    assert await door.statuses(3) == [200, 200, 429]
    assert await door.statuses(3, key="bob") == [200, 200, 429]
    assert await door.statuses(10, key="free") == [200] * 10


async def test_of_many_at_once_exactly_the_limit_reaches_the_engine(redis_server, caplog):
    async with gateway(redis_server.url, caplog, limit=7) as door, door.http() as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(40)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 33
        assert len(door.engine.requests) == 7


@pytest.mark.parametrize("path", ["/v1/completions", CHAT])
async def test_a_stream_that_is_refused_has_not_begun(redis_server, caplog, path):
    stream = STREAM_HEAD + chunk(token("a", "stop")) + chunk(DONE) + END
    async with gateway(redis_server.url, caplog, answer=stream) as door:
        body = BODY | {"prompt": "hi", "stream": True}
        assert await door.statuses(2, path, body) == [200, 200]
        answer = await door.post(path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert len(door.engine.requests) == 2


async def test_all_endpoints_and_doors_share_one_limit(door):
    assert await door.statuses(1, "/v1/completions", {"model": "m", "prompt": "hi"}) == [200]
    assert await door.statuses(1) == [200]
    assert await door.statuses(1, "/v1/completions", {"model": "m", "prompt": "hi"}) == [429]
    assert await door.statuses(1, "/chains/chat/invoke", {"input": {"input": "hi"}}) == [429]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (CHAT, b"{", 400),
        (CHAT, {"model": "m"}, 400),
        (CHAT, BODY | {"model": "unknown"}, 404),
        (CHAT, BODY | {"messages": [{"role": "user", "content": "a " * 101}]}, 400),
        ("/v1/embeddings", {"model": "m", "input": "hi"}, 400),
        ("/v1/nothing", BODY, 404),
        ("/chains/chat/invoke", {"input": {"input": ""}}, 422),
        ("/skills/text/summarize", {}, 422),
        ("/skills/text/nothing", {"text": "hi"}, 404),
    ],
)
async def test_a_request_that_is_wrong_does_not_use_up_the_limit(door, path, body, status):
    assert await door.statuses(5, path, body) == [status] * 5
    assert await door.statuses(3) == [200, 200, 429]


async def test_what_asks_no_model_is_not_limited(door):
    async with door.http() as client:
        answers = [await client.get(path) for path in ("/v1/models", "/chains", "/skills", "/health/live") * 3]
    assert {answer.status_code for answer in answers} == {200}
    assert await door.statuses(3, "/skills/time/add_days", {"day": "2028-02-28", "days": 2}) == [200] * 3
    assert await door.statuses(3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chains/chat/invoke", {"input": {"input": "hi"}}),
        ("/chains/chat/batch", {"inputs": [{"input": "hi"}]}),
        ("/skills/text/summarize", {"text": "hi"}),
    ],
)
async def test_chains_and_skills_are_refused_as_clearly(door, path, body, caplog):
    assert await door.statuses(2, path, body) == [200, 200]
    caplog.clear()
    answer = await door.post(path, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert int(answer.headers["retry-after-ms"]) > 20_000
    assert answer.headers["x-should-retry"] == "true"
    assert len(door.engine.requests) == 2
    assert [record for record in caplog.records if record.levelname not in {"DEBUG", "INFO"}] == []


@pytest.mark.parametrize("run", ["stream", "stream_log", "stream_events"])
async def test_a_chain_s_stream_is_refused(door, run):
    await door.statuses(2)
    answer = await door.post(f"/chains/chat/{run}", {"input": {"input": "hi"}})
    told = answer.json()["error"]["code"] if answer.status_code == 429 else answer.text
    assert told == "rate_limit_exceeded" or ("event: error" in told and '"status_code":429' in told)
    assert len(door.engine.requests) == 2


# OpenAI's SDK


def ask_sync(door: Door, retries: int, seen: list[int]) -> object:
    hooks = {"response": [lambda response: seen.append(response.status_code)]}
    with httpx.Client(event_hooks=hooks) as http:
        client = openai.OpenAI(base_url=f"{door.base}/v1", api_key="sk-alice", max_retries=retries, http_client=http)
        return client.chat.completions.create(model="m", messages=BODY["messages"])


async def ask_async(door: Door, retries: int, seen: list[int]) -> object:
    async def saw(response: httpx.Response) -> None:
        seen.append(response.status_code)

    async with httpx.AsyncClient(event_hooks={"response": [saw]}) as http:
        client = openai.AsyncOpenAI(
            base_url=f"{door.base}/v1", api_key="sk-alice", max_retries=retries, http_client=http
        )
        return await client.chat.completions.create(model="m", messages=BODY["messages"])


async def ask(kind: str, door: Door, retries: int, seen: list[int]) -> object:
    return await (
        asyncio.to_thread(ask_sync, door, retries, seen) if kind == "sync" else ask_async(door, retries, seen)
    )


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_sdk_sees_a_rate_limit_error(door, kind):
    seen: list[int] = []
    for _ in range(2):
        assert (await ask(kind, door, 0, seen)).choices[0].message.content == "hello"
    with pytest.raises(openai.RateLimitError, match="2 requests per minute") as refused:
        await ask(kind, door, 0, seen)
    assert (refused.value.status_code, refused.value.code) == (429, "rate_limit_exceeded")
    assert seen == [200, 200, 429]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_sdk_tries_again_when_it_was_told_to(redis_clock, redis_server, caplog, kind):
    async with gateway(redis_server.url, caplog) as door:
        assert await door.statuses(2) == [200, 200]
        await redis_clock.passes(59 * SECOND_US)  # two to wait: the SDK's own first pause would be shorter
        seen: list[int] = []
        asked = asyncio.create_task(ask(kind, door, 1, seen))
        await eventually(lambda: seen)
        await redis_clock.passes(2 * SECOND_US)
        assert (await asked).choices[0].message.content == "hello"
        assert seen == [429, 200]


# Redis away


async def test_with_redis_stopped_the_door_answers_and_counts_by_itself(hasty, redis_server, redis, caplog):
    async with gateway(redis_server.url, caplog, limit=4, workers=2) as door:
        assert await door.statuses(1) == [200]
        with stopped(await pid_of(redis)):
            assert await door.statuses(3) == [200, 200, 429]
            assert await door.metric("llmgw_limits_alone_total") == 3
            assert len(door.engine.requests) == 3


async def test_with_redis_paused_for_writes_the_door_answers(hasty, redis_server, redis, caplog):
    async with gateway(redis_server.url, caplog, limit=4, workers=2) as door:
        await redis.client_pause(20_000, all=False)
        assert await door.statuses(3) == [200, 200, 429]
        assert await door.metric("llmgw_limits_alone_total") == 3
        await redis.client_unpause()


async def test_with_redis_killed_the_door_answers_and_goes_back_to_it(redis_server, caplog):
    async with gateway(redis_server.url, caplog, limit=4, workers=2) as door:
        redis_server.kill()
        assert await door.statuses(3) == [200, 200, 429]
        caplog.clear()
        redis_server.start()
        await eventually(lambda: "connected to Redis" in caplog.text)
        assert await door.statuses(5) == [200] * 4 + [429]
        assert await door.metric("llmgw_limits_alone_total") == 3


async def test_without_redis_the_limit_holds_for_this_machine_s_workers(caplog):
    async with gateway(None, caplog, limit=4, workers=2) as door:
        assert await door.statuses(3) == [200, 200, 429]
        assert await door.metric("llmgw_limits_alone_total") == 0


async def test_two_workers_share_a_key_s_limit(redis_server, caplog):
    async with gateway(redis_server.url, caplog, limit=5) as one, gateway(redis_server.url, caplog, limit=5) as other:
        answers = await asyncio.gather(*(door.post(CHAT, BODY) for _ in range(8) for door in (one, other)))
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 11
        assert len(one.engine.requests) + len(other.engine.requests) == 5
