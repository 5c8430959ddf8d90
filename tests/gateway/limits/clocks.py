"""Clocks that a test moves: Redis' own, as the scripts read it, and that of a worker that counts alone."""

import pytest
from redis.asyncio import Redis

from gateway.limits import requests, reservations, shares, window
from gateway.redis_script import Script

SECOND_US = 1_000_000


class Clock:
    """
    Attributes:
        us: microseconds since some epoch.
    """

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    async def to(self, us: int) -> None:
        self.us = us

    async def passes(self, us: float) -> None:
        await self.to(self.us + int(us))


class RedisClock(Clock):
    """Two keys hold what TIME would return."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._redis = redis

    async def to(self, us: int) -> None:
        self.us = us
        await self._redis.mset({"clock:s": us // SECOND_US, "clock:us": us % SECOND_US})


async def clock_of_redis(redis: Redis, patched: pytest.MonkeyPatch) -> RedisClock:
    for module, names in ((requests, ["_ADMIT", "_RETURN"]), (reservations, ["_RESERVE", "_SETTLE"])):
        for name in names:
            text = getattr(module, name).text
            moved = text.replace("redis.call('TIME')", "redis.call('MGET', 'clock:s', 'clock:us')")
            assert moved != text
            patched.setattr(module, name, Script(moved))
    clock = RedisClock(redis)
    await clock.to(clock.us)
    return clock


def clock_of_workers(patched: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (requests, shares, window):
        patched.setattr(module, "monotonic_ns", lambda: clock.us * 1000)
    return clock
