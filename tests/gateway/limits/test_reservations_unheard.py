"""Reservations that Redis grants too late, hears of too late, or loses."""

import asyncio

import pytest

from gateway.context import Quota
from gateway.errors import GatewayError
from gateway.limits import reservations as module
from gateway.limits.reservations import Reservation, Reservations
from gateway.metrics import Metrics
from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from tests.gateway.limits.links import answers, linked, pid_of, stopped
from tests.gateway.limits.test_reservations import asks, value
from tests.gateway.redis_faults.proxy import proxy
from tests.polling import eventually

USED = "{llmgw}:used:*"


@pytest.fixture
async def link(redis, redis_server):
    async with linked(redis_server.url) as link:
        yield link


@pytest.fixture
async def worker(link, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    worker = Reservations(link, 1, Metrics())
    task = asyncio.create_task(worker.run())
    yield worker
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def late(link: RedisLink) -> None:
    """Returns once nobody waits for Redis any more, which stands still."""
    with pytest.raises(RedisUnavailable):
        await link.call("PING")
    assert not link.live


async def granted(worker: Reservations, quota: Quota, tokens: int) -> Reservation:
    reservation = await asks(worker, quota, tokens)
    assert isinstance(reservation, Reservation)
    return reservation


async def test_what_is_granted_too_late_is_given_back(hasty, worker, link, redis):
    quota = Quota(tokens_per_minute=1000, concurrency=2, tokens_per_day=24_000)
    with stopped(await pid_of(redis)):
        judged_alone = await granted(worker, quota, 400)
        assert not link.live
    await eventually(lambda: answers(link))

    async def clean() -> bool:
        return await value(redis, USED) == 0 and not await redis.keys("{llmgw}:limit:*")

    await eventually(clean)
    judged_alone.settle(100)
    held = [await granted(worker, quota, 500) for _ in range(2)]
    assert await value(redis, USED) == 1000
    for reservation in held:
        reservation.settle(0)


@pytest.mark.parametrize("used", [10, 8000], ids=["less", "more"])
async def test_an_answer_that_ends_while_redis_is_late_is_settled_afterwards(hasty, worker, link, redis, used):
    quota = Quota(concurrency=1, tokens_per_day=10_000)
    reservation = await granted(worker, quota, 512)
    with stopped(await pid_of(redis)):
        await late(link)
        reservation.settle(used)
    await eventually(lambda: answers(link))

    async def settled() -> bool:
        return await value(redis, USED) == used and not await redis.keys("{llmgw}:limit:open:*")

    await eventually(settled)


async def test_what_had_no_limit_is_not_given_back_of_one(worker, redis):
    """The day's limit was lifted for a while."""
    (await granted(worker, Quota(tokens_per_day=1000), 1000)).settle(1000)
    (await granted(worker, Quota(tokens_per_minute=1000), 900)).settle(100)

    async def settled() -> bool:
        return await redis.hget("{llmgw}:limit:tpm:4:team/key", "sum") == b"100"

    await eventually(settled)
    assert await value(redis, USED) == 1000


async def test_no_more_is_given_back_of_a_day_than_redis_has(worker, link, redis, redis_server):
    quota = Quota(tokens_per_day=10_000)
    lost = [await granted(worker, quota, 2000) for _ in range(5)]
    await _begin_anew(link, redis_server)
    kept = await granted(worker, quota, 100)
    for reservation in lost:
        reservation.settle(50)
    kept.settle(100)
    after = await granted(worker, quota, 10)  # on the same connection, so at Redis behind them
    assert 0 <= await value(redis, USED) <= 10 + 100 + 5 * 50
    after.settle(10)


async def _begin_anew(link: RedisLink, redis_server) -> None:
    redis_server.kill()
    await eventually(lambda: not link.live)
    redis_server.start()  # and it has kept nothing
    await eventually(lambda: answers(link))


async def test_an_open_answer_that_redis_has_lost_is_there_again(monkeypatch, worker, link, redis, redis_server):
    monkeypatch.setattr(module, "RENEW_S", 0.1)
    quota = Quota(concurrency=1)
    held = await granted(worker, quota, 1)
    await _begin_anew(link, redis_server)

    async def there() -> bool:
        return bool(await redis.keys("{llmgw}:limit:open:*"))

    await eventually(there)
    assert isinstance(await asks(worker, quota, 1), GatewayError)
    held.settle(1)

    async def free() -> bool:
        return isinstance(await asks(worker, quota, 1), Reservation)

    await eventually(free)


async def test_leases_of_many_answers_last_at_a_redis_that_is_far_away(monkeypatch, redis, redis_server):
    monkeypatch.setattr(module, "LEASE_S", 1)
    monkeypatch.setattr(module, "RENEW_S", 0.2)
    quota, many = Quota(concurrency=60), range(60)

    async def dial():
        return await asyncio.open_unix_connection(redis_server.url.removeprefix("unix://"))

    async with proxy(dial) as wire, linked(wire.url) as link:
        worker = Reservations(link, 1, Metrics())
        renewing = asyncio.create_task(worker.run())
        wire.delay_s = 0.02
        held = await asyncio.gather(*(granted(worker, quota, 1) for _ in many))
        await asyncio.sleep(2.5)  # one after the other they would take that long
        assert isinstance(await asks(worker, quota, 1), GatewayError)
        renewing.cancel()
        for reservation in held:
            reservation.settle(1)


@pytest.mark.parametrize("how", ["demoted", "alone"])
async def test_what_redis_refuses_for_now_is_settled_later(worker, link, redis, how):
    away, back = {
        "demoted": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        "alone": (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    }[how]
    reservation = await granted(worker, Quota(concurrency=1, tokens_per_day=100_000), 50_000)
    await redis.execute_command(*away)
    reservation.settle(10)
    await asyncio.sleep(0.2)
    await redis.execute_command(*back)
    await eventually(lambda: answers(link))

    async def settled() -> bool:
        return await value(redis, USED) == 10 and not await redis.keys("{llmgw}:limit:open:*")

    await eventually(settled)
