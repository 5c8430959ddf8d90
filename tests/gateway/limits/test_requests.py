"""The request limit in a real Redis, mostly with a clock that the test moves; test_window.py has what it promises."""

import pytest

from gateway.context import RequestContext
from gateway.limits.requests import RequestLimits
from gateway.metrics import Metrics
from tests.gateway.limits.clocks import SECOND_US
from tests.gateway.limits.limits import caller, granted
from tests.gateway.limits.links import linked


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 60, 100])
async def test_a_minute_s_worth_is_granted_at_once_and_not_one_more(worker, limit):
    assert await worker.granted(caller(limit), limit + 50) == limit
    assert worker.alone == 0


async def test_it_is_the_same_one_after_the_other(worker):
    assert [await worker.granted(caller(5), 1) for _ in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]


async def test_each_is_there_again_when_61_seconds_are_over(worker, redis_clock):
    began = redis_clock.us
    steps = (
        (0, 4, 4),
        (10.5, 2, 2),
        (60.999, 9, 0),
        (61, 9, 4),
        (70.999, 9, 0),
        (71, 9, 2),
        (500, 9, 6),
        (500.1, 9, 0),
    )
    for at, asked, expected in steps:
        await redis_clock.to(began + int(at * SECOND_US))
        assert await worker.granted(caller(6), asked) == expected, at


async def test_a_refusal_costs_nothing(worker):
    first = await worker.refusal(caller(2))
    assert await worker.granted(caller(2), 200) == 0
    again = await worker.refusal(caller(2))
    assert float(again.headers["retry-after-ms"]) <= float(first.headers["retry-after-ms"])


@pytest.mark.parametrize("limit", [1, 40, 600])
async def test_two_workers_share_one_window(worker, colleague, redis_clock, limit):
    both = (worker.limits, colleague.limits)
    for _ in range(3):
        assert sum([await granted(both, caller(limit), 60) for _ in range(1 + limit // 100)]) == limit
        await redis_clock.passes(60 * SECOND_US)
        assert await granted(both, caller(limit), 5) == 0
        await redis_clock.passes(SECOND_US)
    assert (worker.alone, colleague.alone) == (0, 0)


async def test_a_refusal_says_how_long_to_wait(worker, redis_clock):
    assert await worker.granted(caller(2), 2) == 2
    await redis_clock.passes(3_500_000)
    refused = await worker.refusal(caller(2))
    headers = refused.headers
    assert (refused.status, refused.type, refused.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert (headers["retry-after-ms"], headers["retry-after"]) == ("57500", "58")
    assert headers["x-should-retry"] == "true"
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "57.5s"
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
async def test_nobody_shares_a_window_with_another_name(worker, one, other, away):
    limits = RequestLimits(None, 1, Metrics()) if away else worker.limits
    assert await granted((limits,), caller(1, *one), 3) == 1
    assert await granted((limits,), caller(1, *other), 3) == 1
    assert await granted((limits,), caller(1, *one), 3) == 0


@pytest.mark.parametrize("limit", [60_000_001, 600_000_000, 10**12, 10**30])
async def test_a_huge_limit_is_in_nobody_s_way(worker, limit):
    for _ in range(3):
        assert await worker.granted(caller(limit), 300) == 300
    assert worker.alone == 0


async def test_a_window_is_forgotten_when_it_is_empty(worker, redis):
    await worker.granted(caller(6), 2)
    (window,) = await redis.keys()
    assert 60_000 - 5_000 < await redis.pttl(window) <= 61_000
    await redis.pexpire(window, 5_000)
    seconds = int((await redis.time())[0])
    await redis.hincrby(window, "second", -3)  # as if these were the requests of some seconds ago
    await redis.hset(window, (seconds - 3) % 61, 2)
    await redis.hdel(window, seconds % 61)
    await worker.granted(caller(6), 1)
    assert 60_000 - 5_000 < await redis.pttl(window) <= 61_000


async def test_a_refusal_keeps_no_window(worker, redis):
    await worker.granted(caller(2), 2)
    (window,) = await redis.keys()
    await redis.pexpire(window, 5_000)
    assert await worker.granted(caller(2), 20) == 0
    assert await redis.pttl(window) <= 5_000


async def test_a_window_holds_no_more_than_its_seconds(worker, redis, redis_clock):
    for _ in range(200):
        await worker.granted(caller(100), 2)
        await redis_clock.passes(700_000)
    (window,) = await redis.keys("{llmgw}:*")
    found = {name.decode(): int(value) for name, value in (await redis.hgetall(window)).items()}
    assert found.pop("second") == (redis_clock.us - 700_000) // SECOND_US
    assert found.pop("sum") == sum(found.values())
    assert len(found) <= 61


@pytest.mark.parametrize("back_s", [0.3, 1, 2.5, 59, 60])
async def test_a_clock_that_was_put_back_has_to_come_there_again(worker, redis_clock, back_s):
    """Two, 20 s later two more, and another two once it was put back."""
    assert await worker.granted(caller(6), 2) == 2
    await redis_clock.passes(20 * SECOND_US)
    assert await worker.granted(caller(6), 2) == 2
    await redis_clock.passes(-back_s * SECOND_US)
    for expected, wait_s in ((2, 41 + back_s), (2, 20), (4, 41)):
        assert await worker.granted(caller(6), 20) == expected
        refused = await worker.refusal(caller(6))
        assert int(refused.headers["retry-after-ms"]) == pytest.approx(wait_s * 1000)
        await redis_clock.passes(wait_s * SECOND_US - 1000)
        assert await worker.granted(caller(6), 20) == 0
        await redis_clock.passes(1000)


async def test_a_clock_that_was_an_hour_ahead_costs_a_minute(worker, redis_clock):
    assert await worker.granted(caller(6), 3) == 3
    await redis_clock.passes(5 * SECOND_US)
    assert await worker.granted(caller(6), 1) == 1
    await redis_clock.passes(-3600 * SECOND_US)
    assert await worker.granted(caller(6), 20) == 2
    await redis_clock.passes(60 * SECOND_US)
    assert await worker.granted(caller(6), 20) == 0
    await redis_clock.passes(SECOND_US)
    assert await worker.granted(caller(6), 20) == 6


async def test_a_limit_that_was_lowered_counts_what_was_used_before(worker, redis_clock):
    assert await worker.granted(caller(10), 6) == 6
    await redis_clock.passes(30 * SECOND_US)
    assert await worker.granted(caller(10), 3) == 3
    refused = await worker.refusal(caller(3))
    assert (refused.headers["retry-after-ms"], refused.headers["x-ratelimit-remaining-requests"]) == ("61000", "0")


async def test_the_clock_is_redis_own(worker, colleague, redis, monkeypatch):
    assert await worker.granted(caller(2), 5) == 2
    monkeypatch.setattr("gateway.limits.requests.monotonic_ns", None)
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
