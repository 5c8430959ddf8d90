"""How many completions a key may ask for in a minute, over all workers and machines together.

The count is in Redis. With Redis away each worker goes by itself and grants its share of the limit, at least one.
"""

import logging
from time import monotonic_ns

from gateway.context import RequestContext
from gateway.errors import RateLimited
from gateway.limits.scripts import script
from gateway.limits.told import Headers, told
from gateway.limits.window import SECOND_NS, SLOTS, Window, Windows
from gateway.metrics import Metrics
from gateway.redis_channel import RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink
from gateway.redis_part import RedisPart

log = logging.getLogger(__name__)

_ADMIT = script("window", "requests")


class RequestLimits:
    """A sliding window per key: no 60 s see more than the limit, and who always asks gets no less than 60/61 of it.

    Args:
        link: None where there is no Redis.
        workers: how many share a limit when each decides alone.

    Attributes:
        alone: nobody is asked, and `admit_alone` says what `admit` does.
    """

    def __init__(self, link: RedisLink | None, workers: int, metrics: Metrics) -> None:
        self.alone = link is None
        self._link = link
        self._metrics = metrics
        # By tenant, key and limit: with another limit a key begins anew.
        self._shares = Windows[tuple[str, str, int], _Share](
            lambda key: _Share(key[2], workers), SLOTS * SECOND_NS * workers
        )
        self._redis = RedisPart(
            "requests",
            metrics,
            log,
            "request limits are counted in Redis",
            "request limits are counted per worker",
            link,
        )

    async def admit(self, context: RequestContext) -> Headers:
        """What the answer tells of the limit: nothing where there is none.

        Raises:
            RateLimited: the key has used up its minute.
        """
        limit = context.requests_per_minute
        if self._link is None or limit is None:
            return self.admit_alone(context)
        key = f"{TAG}:limit:rpm:{len(context.tenant)}:{context.tenant}/{context.key_name}"
        try:
            wait_us, used, empty_in_us = await self._link.evaluate(_ADMIT, key, limit)
        except RedisUnavailable as error:
            self._redis.fails(error)
            self._metrics.limits_alone.inc()
            return self.admit_alone(context)
        self._redis.works()
        headers = told(b"requests", limit).headers(max(limit - used, 0), -(-empty_in_us // 1000))
        if wait_us:
            raise _refusal(limit, wait_us / 1e6, headers)
        return headers

    def admit_alone(self, context: RequestContext) -> Headers:
        """The same out of this worker's share, without waiting."""
        limit = context.requests_per_minute
        if limit is None:
            return ()
        return self._shares[context.tenant, context.key_name, limit].admit()


class _Share(Window):
    """A worker's share of a key's limit; what its answers tell is made once, as far as it is the same."""

    __slots__ = ("_limit", "_limit_header", "_remaining_name", "_reset", "_reset_until", "_told")

    def __init__(self, limit: int, workers: int) -> None:
        super().__init__(limit, workers)
        self._limit = limit
        self._told = told(b"requests", limit)
        self._limit_header, self._remaining_name = self._told.limit, self._told.remaining
        self._reset, self._reset_until = self._told.reset(0), 0

    def admit(self) -> Headers:
        now = monotonic_ns()
        if not self.take(1, now):
            wait_ns, empty_in_ns = self.leaves_in(self.used + 1 - self.most, now)
            raise _refusal(self._limit, wait_ns / 1e9, self._told.headers(0, -(-empty_in_ns // 1_000_000)))
        if now >= self._reset_until:
            full_in_ms = -((now - self.leaves_at) // 1_000_000)
            self._reset = self._told.reset(full_in_ms)
            self._reset_until = min(self.leaves_at - (full_in_ms - 1) * 1_000_000, self.ends)
        return (self._limit_header, (self._remaining_name, b"%d" % (self.most - self.used)), self._reset)


def _refusal(limit: int, wait_s: float, headers: Headers) -> RateLimited:
    text = f"This key may make {limit} requests per minute; try again in {wait_s:.2f} seconds."
    return RateLimited(text, wait_s=wait_s, headers=headers)
