"""What limits promise: never above the limit in any 60 s, never below 95 % of it; in Redis and alone."""

import asyncio
import itertools
from collections import Counter, deque
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.context import Quota, RequestContext
from gateway.errors import RateLimited
from gateway.limits.requests import RequestLimits
from gateway.limits.reservations import Reservation, Reservations
from gateway.metrics import Metrics
from tests.gateway.limits.clocks import SECOND_US, Clock, clock_of_redis, clock_of_workers
from tests.gateway.limits.limits import caller, granted
from tests.gateway.limits.links import linked

MINUTE_US = 60 * SECOND_US
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Microseconds between two arrivals: next to nothing, around a second, a few, and around a window.
GAPS = st.one_of(
    st.integers(0, 1000),
    st.integers(900_000, 1_100_000),
    st.integers(0, 20 * SECOND_US),
    st.integers(59 * SECOND_US, 62 * SECOND_US),
    st.sampled_from([0, 60 * SECOND_US, 61 * SECOND_US]),
)
_names = itertools.count()


def somebody(limit: int | None = None) -> RequestContext:
    """Who has not asked before."""
    return caller(limit, "team", f"key-{next(_names)}")


@dataclass
class Place:
    """Where limits are counted, and its clock."""

    clock: Clock
    limits: RequestLimits
    reservations: Reservations

    async def reserve(self, who: RequestContext, limit: int, tokens: int) -> Reservation | RateLimited:
        reservation = self.reservations.begin(who, Quota(tokens_per_minute=limit), tokens)
        try:
            await reservation.granted()
        except RateLimited as error:
            reservation.settle(0)
            return error
        return reservation

    async def settle(self, reservation: Reservation, used: int) -> None:
        """The settling goes out on the same connection: a later command comes behind it."""
        reservation.settle(used)
        for _ in range(3):
            await asyncio.sleep(0)
        if self.reservations.link is not None:
            await self.reservations.link.call("PING")


@pytest.fixture(params=["in Redis", "alone"])
async def place(request, redis_server, redis, monkeypatch):
    if request.param == "alone":
        clock = clock_of_workers(monkeypatch)
        yield Place(clock, RequestLimits(None, 1, Metrics()), Reservations(None, 1, Metrics()))
        return
    async with linked(redis_server.url) as link:
        clock = await clock_of_redis(redis, monkeypatch)
        yield Place(clock, RequestLimits(link, 2, Metrics()), Reservations(link, 2, Metrics()))


def most(amounts: list[tuple[int, int]]) -> int:
    """The most that any 60 s have, of (time, amount) in order."""
    inside: deque[tuple[int, int]] = deque()
    total = found = 0
    for at, amount in amounts:
        inside.append((at, amount))
        total += amount
        while inside[0][0] < at - MINUTE_US:
            total -= inside.popleft()[1]
        found = max(found, total)
    return found


async def refusal(place: Place, who: RequestContext) -> RateLimited:
    """Asks until it is refused."""
    while True:
        try:
            await place.limits.admit(who)
        except RateLimited as error:
            return error


@PROPERTY
@given(limit=st.integers(1, 12), steps=st.lists(st.tuples(GAPS, st.integers(1, 13)), max_size=15))
async def test_no_minute_has_more_requests_than_the_limit_and_none_is_refused_without_need(place, limit, steps):
    who, grants = somebody(limit), []
    for gap, count in steps:
        await place.clock.passes(gap)
        got = await granted((place.limits,), who, count)
        grants.append((place.clock.us, got))
        held = sum(n for at, n in grants if at // SECOND_US >= place.clock.us // SECOND_US - 60)
        assert got == count or held == limit
    assert most(grants) <= limit


@settings(PROPERTY, max_examples=8)
@given(limit=st.integers(1, 60), gaps=st.lists(st.integers(500_000, 1_000_000), min_size=1, max_size=9))
async def test_who_always_asks_gets_nearly_the_whole_limit(place, limit, gaps):
    who, grants, began = somebody(limit), [], place.clock.us
    for gap in itertools.cycle(gaps):
        got = 0
        while await granted((place.limits,), who, 1):
            got += 1
        grants.append((place.clock.us, got))
        await place.clock.passes(gap)
        if place.clock.us - began >= 10 * MINUTE_US:
            break
    assert most(grants) <= limit
    assert sum(got for _, got in grants) >= 0.95 * 10 * limit


@PROPERTY
@given(limit=st.integers(1, 12), steps=st.lists(st.tuples(GAPS, st.integers(1, 5)), max_size=8))
async def test_a_refusal_tells_exactly_when_to_come_again(place, limit, steps):
    who = somebody(limit)
    for gap, count in steps:
        await place.clock.passes(gap)
        await granted((place.limits,), who, count)
    for _ in range(3):
        refused = await refusal(place, who)
        wait_us = int(refused.headers["retry-after-ms"]) * 1000
        assert 0 < wait_us <= 61 * SECOND_US
        await place.clock.passes(wait_us - 2000)
        await refusal(place, who)
        await place.clock.passes(2000)
        assert await granted((place.limits,), who, 1) == 1


async def test_answers_tell_what_is_left_and_when_all_is_there_again(place):
    """Of three: at 0.25 s two, at 10 s the third, and a fourth that is refused."""
    who = somebody(3)
    await place.clock.passes(250_000)
    told = [dict(await place.limits.admit(who)) for _ in range(2)]
    await place.clock.passes(9_750_000)
    told.append(dict(await place.limits.admit(who)))
    refused = await refusal(place, who)
    names = [b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"]
    assert [[each[name] for name in names] for each in told] == [
        [b"3", b"2", b"1m0.75s"],
        [b"3", b"1", b"1m0.75s"],
        [b"3", b"0", b"1m1s"],
    ]
    assert [refused.headers[name.decode()] for name in names] == ["3", "0", "1m1s"]
    assert (refused.headers["retry-after-ms"], refused.headers["retry-after"]) == ("51000", "51")
    await place.clock.passes(50_999_000)
    assert (await refusal(place, who)).headers["x-ratelimit-reset-requests"] == "10.001s"
    await place.clock.passes(1000)
    assert dict(await place.limits.admit(who))[names[1]] == b"1"


STEP = st.tuples(GAPS, st.integers(1, 150), st.integers(0, 200), st.integers(0, 3))


@PROPERTY
@given(limit=st.integers(1, 120), steps=st.lists(STEP, max_size=12))
async def test_tokens_are_what_was_used_or_is_reserved(place, limit, steps):
    """Each step reserves, and some steps later it is told what was used: less, or more, in the window or after it."""
    who, by_second, due = somebody(), Counter[int](), []
    for number, (gap, tokens, used, later) in enumerate(steps):
        await place.clock.passes(gap)
        second = place.clock.us // SECOND_US
        for at, reservation, cost, truth in [one for when, *one in due if when <= number]:
            await place.settle(reservation, truth)
            if second - at <= 60:
                by_second[at] += truth - cost
            else:
                by_second[second] += max(truth - cost, 0)
        due = [one for one in due if one[0] > number]
        held = sum(amount for at, amount in by_second.items() if at >= second - 60)
        got, cost = await place.reserve(who, limit, tokens), min(tokens, limit)
        assert isinstance(got, RateLimited) == (held + cost > limit)
        if isinstance(got, RateLimited):
            assert got.headers["x-ratelimit-remaining-tokens"] == str(max(limit - held, 0))
            await check_wait(by_second, held + cost - limit, got, place.clock.us)
        else:
            by_second[second] += cost
            due.append((number + 1 + later, second, got, cost, used))
    if all(used <= min(tokens, limit) for _, tokens, used, _ in steps):
        assert most([(second * SECOND_US, amount) for second, amount in sorted(by_second.items())]) <= limit


async def check_wait(by_second: Counter[int], over: int, refused: RateLimited, now: int) -> None:
    """It ends with the first second by which enough has left the window."""
    for second, amount in sorted(by_second.items()):
        if second >= now // SECOND_US - 60:
            over -= amount
            if over <= 0:
                wait_us = (second + 61) * SECOND_US - now
                assert int(refused.headers["retry-after-ms"]) == -(-wait_us // 1000)
                return


@settings(PROPERTY, max_examples=6)
@given(limit=st.integers(20, 1000), steps=st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), min_size=1))
async def test_who_always_asks_uses_nearly_all_tokens(place, limit, steps):
    """What is reserved and not used is there for the next one."""
    who, used, began = somebody(), [], place.clock.us
    largest = max(1, limit // 50)
    for part, share in itertools.cycle(steps):
        tokens = max(1, largest * part // 100)
        got = await place.reserve(who, limit, tokens)
        if isinstance(got, RateLimited):
            await place.clock.passes(int(got.headers["retry-after-ms"]) * 1000)
        else:
            used.append((place.clock.us, max(1, int(tokens * share))))
            await place.settle(got, used[-1][1])
        if place.clock.us - began >= 5 * MINUTE_US:
            break
    assert most(used) <= limit
    assert sum(amount for _, amount in used) >= 0.95 * 5 * limit


async def test_what_was_reserved_a_window_ago_gives_nothing_back(place):
    who = somebody()
    first = await place.reserve(who, 100, 100)
    await place.clock.passes(61 * SECOND_US)
    assert not isinstance(await place.reserve(who, 100, 60), RateLimited)
    await place.settle(first, 0)
    assert isinstance(await place.reserve(who, 100, 41), RateLimited)
    second = await place.reserve(who, 100, 40)
    await place.clock.passes(60 * SECOND_US)
    await place.settle(second, 0)
    assert not isinstance(await place.reserve(who, 100, 40), RateLimited)
