"""The request limit in a real Redis.

Time is Redis' own. A test lets it pass by making every bucket that much older; what really passes beside it is too
little to matter for the low limits, and is reckoned with for the high ones.
"""

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.context import RequestContext
from gateway.limits.requests import RequestLimits
from gateway.metrics import Metrics
from tests.gateway.limits.limits import caller, granted
from tests.gateway.limits.links import linked
from tests.polling import eventually

MINUTE_US = 60_000_000


async def let_pass(redis, us: int) -> None:
    for bucket in await redis.keys():
        await redis.decrby(bucket, us)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 60, 100])
async def test_a_minute_s_worth_is_granted_at_once_and_not_one_more(worker, limit):
    assert await worker.granted(caller(limit), limit + 50) == limit
    assert worker.alone == 0


async def test_it_is_the_same_one_after_the_other(worker):
    assert [await worker.granted(caller(5), 1) for _ in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]


async def test_after_that_one_is_granted_each_time_its_share_of_the_minute_has_passed(worker, redis):
    each = MINUTE_US // 6
    assert await worker.granted(caller(6), 20) == 6
    for shares, expected in ((0.5, 0), (0.5, 1), (0.9, 0), (1.2, 2), (6.0, 6), (60.0, 6), (0.0, 0)):
        await let_pass(redis, int(each * shares))
        assert await worker.granted(caller(6), 20) == expected, shares


async def test_a_refusal_costs_nothing(worker):
    first = await worker.refusal(caller(2))
    assert await worker.granted(caller(2), 200) == 0
    again = await worker.refusal(caller(2))
    assert float(again.headers["retry-after-ms"]) <= float(first.headers["retry-after-ms"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=3),
)
async def test_it_does_what_a_token_bucket_does(worker, redis, limit, steps):
    await redis.flushall()
    each, tokens = MINUTE_US // limit, float(limit)
    for shares, asked in steps:
        passed = shares + 0.3  # three of these never come near a whole request
        await let_pass(redis, int(each * passed))
        tokens = min(tokens + passed, limit)
        expected = min(int(tokens), asked)
        assert await worker.granted(caller(limit), asked) == expected
        tokens -= expected


@pytest.mark.parametrize("limit", [1, 40, 3000])
async def test_two_workers_share_one_bucket(worker, colleague, limit):
    began, got, both = time.monotonic(), 0, (worker.limits, colleague.limits)
    for _ in range(2 + limit // 100):
        got += await granted(both, caller(limit), 60)
    refilled = (time.monotonic() - began) * limit / 60
    assert limit <= got <= limit + refilled
    assert (worker.alone, colleague.alone) == (0, 0)


async def test_at_a_high_limit_time_gives_back_no_more_than_its_share(worker, colleague):
    limit, both = 6000, (worker.limits, colleague.limits)  # one each 10 ms
    began = time.monotonic()
    got = some = await granted(both, caller(limit), 50)
    asked = begun = time.monotonic()
    while some == 100:  # until there are not enough for all who ask
        asked = time.monotonic()
        got += (some := await granted(both, caller(limit), 50))
    # Time gives one back from the first request on, which came some time after `began` and before `begun`.
    assert limit + int((asked - begun) * limit / 60) <= got <= limit + (time.monotonic() - began) * limit / 60


@pytest.mark.parametrize("limit", [300, 6000])
async def test_who_waits_as_long_as_it_is_told_gets_through(worker, limit):
    for _ in range(limit // 60):
        await worker.granted(caller(limit), 60)
    refused = await worker.refusal(caller(limit))
    await asyncio.sleep(int(refused.headers["retry-after-ms"]) / 1000)
    await worker.limits.admit(caller(limit))


async def test_a_refusal_says_how_long_to_wait(worker, redis):
    assert await worker.granted(caller(2), 2) == 2
    await let_pass(redis, 3_500_000)
    refused = await worker.refusal(caller(2))
    headers = refused.headers
    assert (refused.status, refused.type, refused.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert 25_000 < int(headers["retry-after-ms"]) <= 26_500
    assert headers["retry-after"] == str(-(-int(headers["retry-after-ms"]) // 1000))
    assert headers["x-should-retry"] == "true"
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 55 < float(headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 56.5  # until both are there again
    assert "2 requests per minute" in refused.message
    assert "team" not in refused.message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("team", "a"), ("team", "b")),
        (("one", "key"), ("other", "key")),
        (("a", "b"), ("b", "a")),
        (("a/b", "c"), ("a", "b/c")),
        (("a}/{b", "c"), ("a", "b}/{c")),
        (("{a}", "k"), ("a", "k")),
        (("a:b", "c"), ("a", "b:c")),
        (("a b", "c"), ("a", "b c")),
        (("a", "k"), ("a ", "k")),
        (("a", "k"), ("A", "k")),
        (("\u00e9", "k"), ("e\u0301", "k")),
        (("a", "k"), ("a\0", "k")),
        (("a%2Fb", "c"), ("a", "b/c")),
        (("a\\/b", "c"), ("a", "b/c")),
        (("x" * 10_000, "k"), ("x" * 10_001, "k")),
    ],
    ids=lambda who: "+".join(who)[:12],
)
@pytest.mark.parametrize("away", [False, True], ids=["in Redis", "alone"])
async def test_nobody_shares_a_bucket_with_another_name(worker, one, other, away):
    limits = RequestLimits(None, 1, Metrics()) if away else worker.limits
    assert await granted((limits,), caller(1, *one), 3) == 1
    assert await granted((limits,), caller(1, *other), 3) == 1
    assert await granted((limits,), caller(1, *one), 3) == 0


@pytest.mark.parametrize("limit", [60_000_001, 600_000_000, 10**12, 10**30])
async def test_a_huge_limit_is_in_nobody_s_way(worker, limit):
    for _ in range(3):
        assert await worker.granted(caller(limit), 300) == 300
    assert worker.alone == 0


async def test_a_tiny_limit_grants_one_a_minute(worker, redis):
    assert await worker.granted(caller(1), 10) == 1
    refused = await worker.refusal(caller(1))
    assert 50_000 < int(refused.headers["retry-after-ms"]) <= 60_000
    await let_pass(redis, MINUTE_US)
    assert await worker.granted(caller(1), 10) == 1


@pytest.mark.parametrize(("limit", "used"), [(1, 1), (6, 1), (6, 6), (600, 300)])
async def test_a_bucket_is_forgotten_when_it_is_full_again(worker, redis, limit, used):
    await worker.granted(caller(limit), used)
    (bucket,) = await redis.keys()
    full_after_ms = 60_000 * used / limit
    assert full_after_ms - 5_000 < await redis.pttl(bucket) <= full_after_ms + 1


async def test_a_bucket_that_is_full_within_a_moment_is_gone(worker, redis):
    assert await worker.granted(caller(60_000), 3) == 3

    async def forgotten() -> bool:
        return await redis.keys() == []

    await eventually(forgotten)


async def test_the_clock_is_redis_own(worker, colleague, redis, monkeypatch):
    assert await worker.granted(caller(2), 5) == 2
    monkeypatch.setattr("gateway.limits.requests.time", None)
    assert await colleague.granted(caller(2), 5) == 0


async def test_who_has_no_limit_costs_redis_nothing(worker, redis):
    await redis.config_resetstat()
    for _ in range(20):
        await worker.limits.admit(caller(None))
        await worker.limits.admit(RequestContext("r-1"))
    stats = await redis.info("commandstats")
    assert {name for name in stats if name.startswith("cmdstat_eval")} == set()
    assert (await redis.info("stats"))["total_commands_processed"] <= 3  # those of this test
    assert await redis.dbsize() == 0


async def test_a_limit_costs_one_command(worker, redis):
    await worker.granted(caller(100), 1)  # Redis knows the script from here on
    await redis.config_resetstat()
    await worker.granted(caller(100), 50)
    stats = await redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 50
    assert "cmdstat_eval" not in stats


async def test_a_restart_of_a_worker_changes_nothing(redis_server, worker):
    assert await worker.granted(caller(3), 5) == 3
    async with linked(redis_server.url) as link:
        assert await granted((RequestLimits(link, 2, Metrics()),), caller(3), 5) == 0
