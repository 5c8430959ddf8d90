"""Requests that are granted in advance: fewer questions to Redis, and the same promises."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RateLimited
from gateway.limits import advance
from gateway.limits.advance import Advance
from gateway.limits.requests import RequestLimits
from tests.gateway.limits.clocks import SECOND_US, Clock, clock_of_redis
from tests.gateway.limits.limits import granted
from tests.gateway.limits.test_window import PROPERTY, most, somebody
from tests.polling import eventually

HELD_US = advance.HELD_NS // 1000
# Microseconds between two steps: within an advance, around its end, around a second's, and around a window's.
GAPS = st.one_of(
    st.integers(0, 5_000),
    st.integers(HELD_US - 2_000, HELD_US + 2_000),
    st.integers(990_000, 1_010_000),
    st.integers(59 * SECOND_US, 61 * SECOND_US),
)


@pytest.fixture
async def both_clocks(redis, monkeypatch):
    clock = await clock_of_redis(redis, monkeypatch)
    monkeypatch.setattr(advance, "monotonic_ns", lambda: clock.us * 1000)
    return clock


async def counted(redis, who) -> int:
    """Requests of a caller that Redis has in its window."""
    return int(await redis.hget(f"{{llmgw}}:limit:rpm:4:team/{who.key_name}", "sum") or 0)


async def calls(redis) -> int:
    stats = await redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "eval"))


async def one_by_one(limits: RequestLimits, who, count: int) -> int:
    """As many as get through of `count` requests, one after the other."""
    got = 0
    for _ in range(count):
        try:
            await limits.admit(who)
        except RateLimited:
            continue
        got += 1
    return got


async def test_a_key_that_asks_often_seldom_costs_redis_a_question(worker, redis):
    who = somebody(10**6)
    await redis.config_resetstat()
    assert await one_by_one(worker.limits, who, 3000) == 3000
    assert await calls(redis) < 300
    await eventually(lambda: _is(counted(redis, who), 3000))
    assert worker.alone == 0


async def _is(value, expected) -> bool:
    return await value == expected


async def test_what_is_not_used_is_given_back(worker, redis):
    who, made = somebody(10**6), 0
    for _ in range(4):  # each time more are granted in advance
        made += await granted((worker.limits,), who, 40)
    assert await counted(redis, who) > made
    await eventually(lambda: _is(counted(redis, who), made))


@pytest.mark.parametrize("limit", [129, 500, 1000, 5000])
async def test_two_workers_use_up_the_limit_and_no_more(worker, colleague, both_clocks, limit):
    who, both, got = somebody(limit), (worker.limits, colleague.limits), 0
    for _ in range(400):
        got += await granted(both, who, 10)
        await both_clocks.passes(1_000)
    assert got == limit
    await both_clocks.passes(59 * SECOND_US)
    assert await granted(both, who, 10) == 0
    await both_clocks.passes(2 * SECOND_US)
    assert await granted(both, who, 10) == 20


async def test_a_worker_that_went_quiet_keeps_nothing_from_the_others(worker, colleague):
    who = somebody(2000)
    quiet = sum([await granted((colleague.limits,), who, 10) for _ in range(30)])
    assert quiet == 300
    await asyncio.sleep(2 * advance.HELD_NS / 1e9)
    assert await one_by_one(worker.limits, who, 2000) == 1700


@PROPERTY
@given(
    limit=st.integers(129, 3000),
    steps=st.lists(st.tuples(GAPS, st.integers(1, 400), st.booleans()), min_size=3, max_size=20),
)
async def test_no_minute_has_more_than_the_limit(worker, colleague, both_clocks, limit, steps):
    who, grants = somebody(limit), []
    for gap, count, other in steps:
        await both_clocks.passes(gap)
        limits = colleague.limits if other else worker.limits
        got = await granted((limits,), who, count)
        grants.append((both_clocks.us, got))
        # What the other worker may hold, and what both hold that has not been given back yet.
        held = sum(n for at, n in grants if at // SECOND_US >= both_clocks.us // SECOND_US - 60)
        assert got == count or held >= 0.95 * limit
    assert most(grants) <= limit


async def test_an_advance_ends_with_its_second(worker, both_clocks, redis):
    """Else it would be used in a second, and counted in the one before it."""
    who = somebody(10**6)
    await both_clocks.to(both_clocks.us // SECOND_US * SECOND_US + SECOND_US - 60_000)
    for _ in range(10):
        await granted((worker.limits,), who, 20)
        await both_clocks.passes(5_000)
    await worker.limits.ask(who)
    assert worker.limits.admit_at_once(who) is not None
    await both_clocks.passes(20_000)
    assert worker.limits.admit_at_once(who) is None
    await worker.limits.ask(who)
    window = await redis.hgetall(f"{{llmgw}}:limit:rpm:4:team/{who.key_name}")
    seconds = {int(name): int(value) for name, value in window.items() if name.isdigit()}
    assert seconds[both_clocks.us // SECOND_US % 61] >= 1


async def test_it_ends_with_its_second_whoever_asks_before_the_reply_is_read(monkeypatch):
    clock, held = Clock(), Advance(10**6)
    monkeypatch.setattr(advance, "monotonic_ns", lambda: clock.us * 1000)
    held.wanted()
    for _ in range(100):
        held.take()
    await clock.passes(HELD_US)
    wanted, asked = held.wanted()
    assert wanted > 0
    await clock.passes(HELD_US + 1_000)  # the loop was busy, and somebody else asks before it reads the reply
    held.take()
    held.wanted()
    held.grant(asked, wanted, second=7, room=10**6, empty_in_us=60 * SECOND_US + 20_000)
    assert held.take() is None


async def test_it_ends_after_a_moment(worker, both_clocks):
    who = somebody(10**6)
    for _ in range(3):
        await granted((worker.limits,), who, 20)
        await both_clocks.passes(HELD_US)
    await worker.limits.ask(who)
    await both_clocks.passes(HELD_US - 1)
    assert worker.limits.admit_at_once(who) is not None
    await both_clocks.passes(1)
    assert worker.limits.admit_at_once(who) is None


async def test_answers_tell_what_is_left_as_if_each_had_asked(worker):
    who = somebody(10**6)
    told = [dict(await worker.limits.admit(who)) for _ in range(500)]
    names = [b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"]
    assert {tuple(each) for each in told} == {tuple(names)}
    assert [int(each[names[1]]) for each in told] == [10**6 - number for number in range(1, 501)]


async def test_a_key_near_its_limit_is_asked_for_each_time(worker, redis):
    who = somebody(128)
    await redis.config_resetstat()
    assert await one_by_one(worker.limits, who, 200) == 128
    assert await calls(redis) >= 200


async def test_redis_goes_while_there_is_an_advance(worker, redis_server, both_clocks, monkeypatch):
    """What is left of it is let through; then the worker counts by itself, and says so."""
    monkeypatch.setattr("gateway.limits.requests.HELD_NS", 10**12)  # by that of the test's clock it ends anyway
    who, made = somebody(10**6), 0
    while worker.limits.admit_at_once(who) is None:
        await worker.limits.ask(who)
    redis_server.kill()
    while worker.limits.admit_at_once(who) is not None:
        made += 1
    assert made > 0
    assert worker.alone == 0
    await worker.limits.ask(who)
    assert worker.alone == 1
