"""Tokens, budgets and open answers in a real Redis, over two workers."""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import openai
import pytest

from gateway.app import create_app
from gateway.context import Quota, RequestContext
from gateway.errors import GatewayError, OverBudget, RateLimited
from gateway.limits import reservations as module
from gateway.limits.reservations import Reservation, Reservations
from gateway.metrics import Metrics
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.clocks import SECOND_US
from tests.gateway.limits.links import linked
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, chunk, raw_server, sized, token
from tests.polling import eventually

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

WHO = RequestContext("r-1", "team", "key")
USED = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
ANSWER = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}], "usage": USED}
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}


@pytest.fixture
async def pair(redis_server):
    """Two workers."""
    async with linked(redis_server.url) as one, linked(redis_server.url) as other:
        yield [Reservations(link, 2, Metrics()) for link in (one, other)]


async def asks(worker: Reservations, quota: Quota, tokens: int, who: RequestContext = WHO):
    """A reservation that was granted, or the error."""
    reservation = worker.begin(who, quota, tokens)
    try:
        await reservation.granted()
    except GatewayError as error:
        reservation.settle(0)
        return error
    return reservation


async def value(redis, pattern: str) -> int:
    keys = await redis.keys(pattern)
    return sum([int(await redis.get(key)) for key in keys])


async def test_tokens_of_a_minute_are_shared_and_settled(pair, redis):
    quota = Quota(tokens_per_minute=1000)
    first = await asks(pair[0], quota, 600)
    refused = await asks(pair[1], quota, 600)
    assert isinstance(refused, RateLimited)
    assert refused.headers["x-ratelimit-limit-tokens"] == "1000"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "400"
    assert 40 < float(refused.headers["retry-after-ms"]) / 1000 <= 61
    first.settle(100)
    await eventually(lambda: _granted(pair[1], quota, 600))


async def _granted(worker, quota, tokens) -> bool:
    return not isinstance(await asks(worker, quota, tokens), GatewayError)


async def test_more_than_a_minute_holds_is_granted_by_an_empty_one(pair, redis_clock):
    quota = Quota(tokens_per_minute=10)
    assert await _granted(pair[0], quota, 10_000)
    assert not await _granted(pair[0], quota, 1)
    await redis_clock.passes(61 * SECOND_US)
    assert await _granted(pair[0], quota, 1)
    assert not await _granted(pair[0], quota, 10_000)


@pytest.mark.parametrize(("quota", "period"), [(Quota(tokens_per_day=100), "day"), (Quota(0, 0, 0, 100), "month")])
async def test_a_budget_is_used_up_and_says_until_when(pair, redis, quota, period):
    first = await asks(pair[0], quota, 80)
    refused = await asks(pair[1], quota, 30)
    assert isinstance(refused, OverBudget)
    assert period in str(refused)
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 86400 * (1 if period == "day" else 31) + 1
    first.settle(50)
    await eventually(lambda: _granted(pair[1], quota, 50))
    assert await value(redis, "{llmgw}:used:*") == 100
    stamp = datetime.now(UTC).strftime("%Y-%m-%d" if period == "day" else "%Y-%m")
    (key,) = await redis.keys("{llmgw}:used:*")
    assert key.decode().endswith(stamp)
    assert await redis.ttl(key) > 0


async def test_open_answers_are_counted_over_all_workers(pair):
    quota = Quota(concurrency=3)
    held = [await asks(pair[n % 2], quota, 1) for n in range(3)]
    refused = await asks(pair[1], quota, 1)
    assert isinstance(refused, RateLimited)
    assert refused.headers["x-ratelimit-limit-concurrency"] == "3"
    held[0].settle(1)
    await eventually(lambda: _granted(pair[1], quota, 1))


async def test_a_worker_that_dies_leaks_no_place_and_one_that_lives_keeps_its(pair, monkeypatch):
    monkeypatch.setattr(module, "LEASE_S", 1)
    monkeypatch.setattr(module, "RENEW_S", 0.3)
    quota = Quota(concurrency=2)
    alive = asyncio.create_task(pair[0].run())
    await asks(pair[0], quota, 1)
    await asks(pair[1], quota, 1)  # nobody renews this one
    assert not await _granted(pair[0], quota, 1)
    await eventually(lambda: _granted(pair[0], quota, 1))
    await asyncio.sleep(1.5)
    assert not await _granted(pair[1], quota, 1)
    alive.cancel()


async def test_who_leaves_before_the_reply_leaks_nothing(pair, redis):
    quota = Quota(1000, 5, 10_000, 0)
    reservation = pair[0].begin(WHO, quota, 500)
    waiting = asyncio.create_task(reservation.granted())
    await asyncio.sleep(0)
    waiting.cancel()
    reservation.settle(0)
    # Judged after the one that was left, on the same connection: until that is given back there is no room.
    await eventually(lambda: _granted(pair[0], Quota(1000), 1000))
    await redis.delete("{llmgw}:limit:tpm:4:team/key")

    async def clean() -> bool:
        return (await value(redis, "{llmgw}:used:*"), await redis.keys("{llmgw}:limit:*")) == (0, [])

    await eventually(clean)


async def test_a_refusal_takes_nothing(pair, redis):
    quota = Quota(100, 1, 1000, 1000)
    held = await asks(pair[0], quota, 50)
    before = await value(redis, "{llmgw}:used:*")
    for _ in range(5):
        assert isinstance(await asks(pair[1], quota, 40), RateLimited)
    assert await value(redis, "{llmgw}:used:*") == before == 100
    held.settle(50)


async def test_nobody_uses_anothers(pair):
    quota = Quota(tokens_per_minute=10, concurrency=1)
    for who in (WHO, replace(WHO, tenant="other"), replace(WHO, key_name="other")):
        assert not isinstance(await asks(pair[0], quota, 10, who), GatewayError)


async def test_without_redis_each_worker_grants_its_share():
    worker = Reservations(None, 2, Metrics())
    assert await _granted(worker, Quota(tokens_per_minute=2), 1)
    assert isinstance(await asks(worker, Quota(tokens_per_minute=2), 1), RateLimited)
    quota, who = Quota(concurrency=4), replace(WHO, key_name="other")
    held = [await asks(worker, quota, 1, who) for _ in range(2)]
    assert isinstance(await asks(worker, quota, 1, who), RateLimited)
    held[0].settle(1)
    await asyncio.sleep(0)
    assert not isinstance(await asks(worker, quota, 1, who), GatewayError)


async def test_without_redis_a_share_of_a_day_is_an_hour_s_in_an_hour_and_settled(clock):
    worker, quota = Reservations(None, 2, Metrics()), Quota(tokens_per_day=4800)
    first = await asks(worker, quota, 100)
    refused = await asks(worker, quota, 1)
    assert isinstance(refused, OverBudget)
    first.settle(70)
    await asyncio.sleep(0)
    assert await _granted(worker, quota, 30)
    assert isinstance(await asks(worker, quota, 1), OverBudget)
    await clock.passes(int(refused.headers["retry-after"]) * SECOND_US)
    assert await _granted(worker, quota, 100)


async def test_without_redis_nothing_is_taken_by_what_another_limit_refuses(clock):
    worker, quota = Reservations(None, 1, Metrics()), Quota(tokens_per_minute=100, tokens_per_day=24 * 60)
    assert isinstance(await asks(worker, quota, 60), Reservation)
    for _ in range(3):
        assert isinstance(await asks(worker, quota, 40), OverBudget)
    assert await _granted(worker, Quota(tokens_per_minute=100), 40)


@asynccontextmanager
async def door(redis_url: str, *answers: object, **limits: int):
    """Two gateways that share a Redis and an engine."""
    secret = hashlib.sha256(b"sk-1").hexdigest()
    key = {"name": "k", "tenant": "t", "hash": f"sha256:{secret}"} | limits
    async with AsyncExitStack() as running:
        engine = await running.enter_async_context(raw_server(*answers))
        settings = Settings.load(redis_url=redis_url, keys=[key], upstreams=[{"model": "m", "url": engine.url}])
        clients = []
        for _ in range(2):
            base = await running.enter_async_context(served(create_app(settings), lifespan="on"))
            headers = {"authorization": "Bearer sk-1"}
            clients.append(await running.enter_async_context(httpx.AsyncClient(base_url=base, headers=headers)))
        for client in clients:
            await eventually(lambda client=client: _up(client))
        yield clients


async def _up(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).json()["redis"] == "up"


async def test_a_budget_through_two_doors_counts_what_was_really_used(redis_server, redis):
    async with door(redis_server.url, sized(json.dumps(ANSWER).encode()), tokens_per_day=200) as (one, other):
        for client in (one, other):
            assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200

        async def settled() -> bool:
            return await value(redis, "{llmgw}:used:*") == 100

        await eventually(settled)
        async with openai.AsyncOpenAI(base_url=f"{other.base_url}/v1", api_key="sk-1") as sdk:
            with pytest.raises(openai.RateLimitError, match="of this day") as refused:
                await sdk.chat.completions.create(**ASK | {"max_tokens": 150})
        assert refused.value.code == "insufficient_quota"
        assert (await one.post("/v1/chat/completions", json=ASK | {"max_tokens": 50})).status_code == 200


async def test_a_stream_that_is_left_frees_its_place_and_counts_what_came(redis_server, redis):
    begun = STREAM_HEAD + b"".join(chunk(token(str(n))) for n in range(5))
    whole = STREAM_HEAD + chunk(token("a", "stop") + DONE) + END
    async with door(redis_server.url, begun, whole, concurrency=1, tokens_per_day=1000) as (one, other):
        async with one.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as answer:
            assert answer.status_code == 200
            refused = await other.post("/v1/chat/completions", json=ASK)
            assert (refused.status_code, refused.headers["x-ratelimit-limit-concurrency"]) == (429, "1")

        async def free() -> bool:
            return (await other.post("/v1/chat/completions", json=ASK | {"stream": True})).status_code == 200

        await eventually(free)

        async def settled() -> bool:
            return 0 < await value(redis, "{llmgw}:used:*") < 20

        await eventually(settled)


async def test_a_failed_answer_gives_everything_back(redis_server, redis):
    async with door(redis_server.url, sized(b"{}", "500 Oops"), tokens_per_day=1000, concurrency=1) as (one, _):

        async def clean() -> bool:
            return await value(redis, "{llmgw}:used:*") == 0 and not await redis.keys("{llmgw}:limit:open:*")

        for _ in range(3):
            assert (await one.post("/v1/chat/completions", json=ASK)).status_code == 502
            await eventually(clean)
