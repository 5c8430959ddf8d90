"""The exact cache through the door, on a real Redis."""

import asyncio
import hashlib
import json
import time

import openai
import pytest

from gateway.settings import Key
from gateway.upstream.sse import payloads
from tests.gateway.cache.conftest import chunks, connected, frames, gateway, whole
from tests.polling import eventually

STREAM = {"stream": True, "temperature": 0}
WITH_USAGE = STREAM | {"stream_options": {"include_usage": True}}


def sent(number: int, usage: bool) -> bytes:
    return b"".join(frames(chunks(number, usage))) + b"data: [DONE]\n\n"


def said(answer) -> tuple[str, str]:
    return answer.headers["x-llmgw-cache"], "age" in answer.headers


async def test_the_second_time_it_comes_out_of_the_cache(cached, redis):
    first = await cached.post(temperature=0)
    await cached.stored(redis)
    second = await cached.post(temperature=0)
    assert (first.json(), second.content) == (whole(1), first.content)
    assert (said(first), said(second)) == (("miss", False), ("hit", True))
    assert int(second.headers["age"]) < 10
    assert cached.asked == 1
    assert 0 < await redis.ttl((await redis.keys("{llmgw}:cache:*"))[0]) <= 3600


@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
async def test_a_stream_comes_out_byte_for_byte(cached, redis, usage):
    fields = WITH_USAGE if usage else STREAM
    first = await cached.post(**fields)
    await cached.stored(redis)
    second = await cached.post(**fields)
    assert first.content == second.content == sent(1, usage)
    assert (said(first), said(second), cached.asked) == (("miss", False), ("hit", True), 1)


async def test_a_kept_stream_answers_a_request_for_the_whole(cached, redis):
    await cached.post(**WITH_USAGE)
    await cached.stored(redis)
    answer = await cached.post(temperature=0)
    assert (answer.headers["x-llmgw-cache"], answer.json()) == ("hit", whole(1))
    plain = await cached.post(**STREAM)
    assert plain.headers["x-llmgw-cache"] == "hit"
    events = [json.loads(payload) for payload in payloads(plain.content) if payload != b"[DONE]"]
    assert events == chunks(1, usage=False)


async def test_a_kept_whole_answers_a_request_for_a_stream(cached, redis):
    await cached.post(temperature=0)
    await cached.stored(redis)
    url = f"{cached.client.base_url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        events = [event async for event in stream]
    deltas = [event.choices[0].delta for event in events if event.choices]
    assert {event.object for event in events} == {"chat.completion.chunk"}
    assert "".join(delta.content or "" for delta in deltas) == "Naïve \u2028☃"
    assert [call.function.arguments for delta in deltas for call in delta.tool_calls or ()] == ['{"at":1}']
    assert [event.choices[0].finish_reason for event in events if event.choices] == [None, "tool_calls"]
    assert events[-1].usage.total_tokens == 7
    assert cached.asked == 1


async def test_a_stream_kept_without_usage_is_no_answer_to_who_asks_for_it(cached, redis):
    await cached.post(**STREAM)
    await cached.stored(redis)
    assert (await cached.post(**WITH_USAGE)).headers["x-llmgw-cache"] == "miss"
    assert cached.asked == 2


@pytest.mark.parametrize(
    ("fields", "control", "outcome"),
    [
        ({}, None, "bypass"),
        ({"temperature": 0.7}, None, "bypass"),
        ({"temperature": 0}, None, "hit"),
        ({"seed": 7}, None, "hit"),
        ({"seed": -1}, None, "bypass"),
        ({"temperature": 0}, "no-store", "bypass"),
        ({"temperature": 0}, "no-cache", "miss"),
        ({"temperature": 0}, "max-age=60", "hit"),
        ({}, "max-age=60", "hit"),
        ({}, "no-cache", "bypass"),
    ],
)
async def test_what_is_cached(cached, redis, fields, control, outcome):
    headers = {"cache-control": control} if control else {}
    await cached.post(headers=headers, **fields)
    if outcome != "bypass":
        await cached.stored(redis)
    answer = await cached.post(headers=headers, **fields)
    assert answer.headers["x-llmgw-cache"] == outcome
    assert cached.asked == (1 if outcome == "hit" else 2)
    if outcome == "bypass":
        assert await redis.keys("{llmgw}:cache:*") == []


async def test_an_answer_that_is_too_old_is_asked_for_again(cached, redis, monkeypatch):
    await cached.post(temperature=0)
    await cached.stored(redis)
    now = time.time()
    monkeypatch.setattr("gateway.cache.entry.time.time", lambda: now + 100)
    answer = await cached.post(temperature=0)
    assert (answer.headers["x-llmgw-cache"], answer.headers["age"]) == ("hit", "100")
    answer = await cached.post(headers={"cache-control": "max-age=99"}, temperature=0)
    assert answer.headers["x-llmgw-cache"] == "miss"


async def test_a_max_age_that_is_no_number_is_refused(cached):
    answer = await cached.post(headers={"cache-control": "max-age=soon"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cache-control")


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"seed": 2},
        {"max_tokens": 3},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"cache_salt": "x"},
    ],
)
async def test_whatever_changes_the_answer_changes_the_key(cached, redis, change):
    await cached.post(temperature=0)
    await cached.stored(redis)
    assert (await cached.post(**{"temperature": 0} | change)).headers["x-llmgw-cache"] == "miss"


async def test_the_order_of_the_fields_does_not(cached, redis):
    await cached.post(temperature=0, top_p=1)
    await cached.stored(redis)
    body = b'{"top_p":1,"messages":[{"content":"hi","role":"user"}],"temperature":0,"model":"m","stream":false}'
    answer = await cached.client.post("/v1/chat/completions", content=body)
    assert answer.headers["x-llmgw-cache"] == "hit"


async def test_embeddings_are_always_cached(cached, redis):
    for outcome in ("miss", "hit"):
        answer = await cached.client.post("/v1/embeddings", json={"model": "m", "input": "x"})
        assert answer.headers["x-llmgw-cache"] == outcome
        await cached.stored(redis)


async def test_no_tenant_gets_the_answer_of_another(redis_server, redis):
    keys = {name: f"sk-{name}" for name in ("a-1", "a-2", "b-1")}
    entries = tuple(Key(name=name, tenant=name[0], hash=_hash(secret)) for name, secret in keys.items())
    async with gateway(redis_server.url, keys=entries) as running:
        for name, outcome in (("a-1", "miss"), ("b-1", "miss"), ("a-2", "hit"), ("b-1", "hit")):
            answer = await running.post(headers={"authorization": f"Bearer {keys[name]}"}, temperature=0)
            assert (name, answer.headers["x-llmgw-cache"]) == (name, outcome)
            await running.stored(redis, 1 if name == "a-1" else 2)


def _hash(secret: str) -> str:
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


@pytest.mark.parametrize(("policy", "outcomes"), [("always", ["miss", "hit"]), ("never", ["bypass", "bypass"])])
async def test_a_keys_own_policy(redis_server, redis, policy, outcomes):
    key = Key(name="k", tenant="t", hash=_hash("sk-1"), cache=policy)
    fields = {} if policy == "always" else {"temperature": 0}
    async with gateway(redis_server.url, keys=(key,)) as running:
        for outcome in outcomes:
            answer = await running.post(headers={"authorization": "Bearer sk-1"}, **fields)
            assert answer.headers["x-llmgw-cache"] == outcome
            await running.stored(redis, 1 if policy == "always" else 0)


@pytest.mark.parametrize(
    "tamper", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: b"\x01" + data[1:]]
)
async def test_an_entry_that_was_tampered_with_is_a_miss_and_is_gone(cached, redis, tamper):
    await cached.post(temperature=0)
    await cached.stored(redis)
    (key,) = await redis.keys("{llmgw}:cache:*")
    bad = tamper(await redis.get(key))
    await redis.set(key, bad)
    answer = await cached.post(temperature=0)
    assert (answer.headers["x-llmgw-cache"], answer.json()) == ("miss", whole(2))
    await eventually(lambda: _other(redis, key, bad))
    assert (await cached.post(temperature=0)).headers["x-llmgw-cache"] == "hit"


async def _other(redis, key, bad) -> bool:
    return await redis.get(key) not in (None, bad)


async def test_an_entry_under_another_key_is_a_miss(cached, redis):
    await cached.post(temperature=0)
    await cached.stored(redis)
    (key,) = await redis.keys("{llmgw}:cache:*")
    await cached.post(temperature=0, max_tokens=9)
    await cached.stored(redis, 2)
    (other,) = set(await redis.keys("{llmgw}:cache:*")) - {key}
    await redis.copy(key, other, replace=True)
    assert (await cached.post(temperature=0, max_tokens=9)).headers["x-llmgw-cache"] == "miss"


async def test_only_a_complete_answer_is_kept(cached, redis):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **STREAM})
    async with cached.client.stream("POST", "/v1/chat/completions", content=body):
        pass  # left before the first byte of the body was read
    await asyncio.sleep(0.3)
    kept = await redis.keys("{llmgw}:cache:*")
    answer = await cached.post(**STREAM)
    assert answer.content == sent(1 if kept else 2, usage=False)


async def test_long_answers_are_not_kept(redis_server, redis):
    async with gateway(redis_server.url, cache_max_answer_bytes=100) as running:
        for fields in (STREAM, {"temperature": 0}):
            await running.post(**fields)
            await asyncio.sleep(0.2)
            assert await redis.keys("{llmgw}:cache:*") == []


async def test_a_paced_stream_comes_as_it_was_written(redis_server, redis):
    async with gateway(redis_server.url, cache_replay="paced") as running:
        await running.post(**STREAM)
        await running.stored(redis)
        answer = await running.post(**STREAM)
    assert (answer.headers["x-llmgw-cache"], answer.content) == ("hit", sent(1, usage=False))


async def test_without_redis_nothing_is_cached_and_nobody_waits(redis_server, redis, caplog):
    caplog.set_level("INFO", "gateway.cache")
    async with gateway(redis_server.url) as running:
        await running.post(temperature=0)
        await running.stored(redis)
        redis_server.kill()
        await eventually(lambda: "lost the connection to Redis" in caplog.text)
        for _ in range(3):
            answer = await running.post(temperature=0)
            assert (answer.status_code, answer.headers["x-llmgw-cache"]) == (200, "miss")
        assert caplog.text.count("the cache is not in use") == 1
        redis_server.start()
        await eventually(lambda: connected(running.client))
        await eventually(lambda: _hit(running))
    assert "the cache is in use" in caplog.text


async def _hit(running) -> bool:
    return (await running.post(temperature=0)).headers["x-llmgw-cache"] == "hit"


async def test_metrics_count_the_parts(cached, redis):
    await cached.post(temperature=0)
    await cached.stored(redis)
    await cached.post(temperature=0)
    await cached.post()
    text = (await cached.client.get("/metrics")).text
    for part in ("hit", "miss"):
        assert f'llmgw_cache_answers_total{{cache="{part}"}} 1.0' in text
