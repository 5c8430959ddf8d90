"""What answers tell of their key's limits: read with OpenAI's own SDK, from two gateways with a real Redis."""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import openai
import pytest

from gateway.limits.told import duration
from tests.gateway.cache.conftest import Gateway, gateway
from tests.gateway.limits import test_doors as doors

# What was just granted is there again after 60 to 61 seconds.
RESET = re.compile(r"1m[01](\.\d+)?s")
MESSAGES = [{"role": "user", "content": "hi"}]


def key(name: str, **limits: int) -> dict:
    return {"name": name, "tenant": "t", "hash": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"} | limits


KEYS = [
    key("free"),
    key("requests", requests_per_minute=3),
    key("tokens", tokens_per_minute=600),
    key("both", requests_per_minute=3, tokens_per_minute=600),
    key("others", concurrency=5, tokens_per_day=10_000, tokens_per_month=100_000),
]


@asynccontextmanager
async def two(redis_url: str) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with gateway(redis_url, keys=KEYS) as one, gateway(redis_url, keys=KEYS) as other:
        yield one, other


def told(headers: Mapping[str, str]) -> dict[str, str]:
    """By the part after `x-ratelimit-`."""
    return {name[12:]: value for name, value in headers.items() if name.startswith("x-ratelimit-")}


async def ask(at: Gateway, key: str, **fields: object) -> dict[str, str]:
    async with openai.AsyncOpenAI(base_url=f"{at.client.base_url}/v1", api_key=key, max_retries=0) as sdk:
        create = sdk.chat.completions.with_raw_response.create
        raw = await create(model="m", messages=MESSAGES, max_tokens=100, **fields)
        parsed = raw.parse()
        if fields.get("stream"):
            assert [event async for event in parsed][-1].choices[0].finish_reason == "tool_calls"
        else:
            assert parsed.choices[0].message.content
    return told(raw.headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_reads_what_is_left_of_the_requests_of_all_gateways(redis_server, stream):
    async with two(redis_server.url) as (one, other):
        first, second = await ask(one, "requests", stream=stream), await ask(other, "requests", stream=stream)
        assert first | {"reset-requests": ""} == {
            "limit-requests": "3",
            "remaining-requests": "2",
            "reset-requests": "",
        }
        assert (second["limit-requests"], second["remaining-requests"]) == ("3", "1")
        assert all(RESET.fullmatch(each["reset-requests"]) for each in (first, second))
        third = await ask(one, "requests", stream=stream)
        assert third["remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as refused:
            await ask(other, "requests", stream=stream)
        headers = refused.value.response.headers
        assert told(headers).keys() == first.keys()
        assert told(headers)["remaining-requests"] == "0"
        assert 40_000 < int(headers["retry-after-ms"]) <= 61_000


async def test_the_sdk_reads_what_is_left_of_the_tokens(redis_server):
    async with two(redis_server.url) as (one, other):
        first, second = await ask(one, "tokens"), await ask(other, "tokens")
        assert (first["limit-tokens"], first["remaining-tokens"]) == ("600", "500")
        assert RESET.fullmatch(first["reset-tokens"])
        assert (second["limit-tokens"], second.keys()) == ("600", first.keys())
        assert 400 <= int(second["remaining-tokens"]) <= 500


async def test_each_limit_of_a_key_is_told_and_no_other(redis_server):
    async with two(redis_server.url) as (one, _):
        both = await ask(one, "both")
        assert both.keys() == {
            f"{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
        }
        assert (both["remaining-requests"], both["remaining-tokens"]) == ("2", "500")
        assert await ask(one, "free") == await ask(one, "others") == {}


async def test_an_answer_out_of_the_cache_tells_them_too(redis_server, redis):
    async with two(redis_server.url) as (one, other):
        headers = {"x-api-key": "requests"}
        await one.post(headers=headers, temperature=0)
        await one.stored(redis)
        hit = await other.post(headers=headers, temperature=0)
        assert (hit.headers["x-llmgw-cache"], told(hit.headers)["remaining-requests"]) == ("hit", "1")


async def test_without_redis_a_worker_tells_its_share(caplog):
    async with doors.gateway(None, caplog, limit=6, workers=2) as door:
        left = [told((await door.post(doors.CHAT, doors.BODY)).headers) for _ in range(4)]
    assert [answer["remaining-requests"] for answer in left] == ["2", "1", "0", "0"]
    assert left[0]["limit-requests"] == "6"
    assert RESET.fullmatch(left[0]["reset-requests"])


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, b"0s"), (1, b"1ms"), (120, b"120ms"), (999, b"999ms"), (1000, b"1s"), (7660, b"7.66s"),
        (59_951, b"59.951s"), (60_000, b"1m0s"), (60_001, b"1m0.001s"), (72_500, b"1m12.5s"), (360_000, b"6m0s"),
        (3_630_000, b"1h0m30s"),
    ],
)  # fmt: skip
def test_a_time_is_written_as_go_writes_it(ms, text):
    assert duration(ms) == text
