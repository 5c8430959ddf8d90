"""How many completions a key may ask for in a minute, over all workers and machines together.

The count is in Redis, which grants some in advance to a worker that asks often (`advance.py`). With Redis away each
worker goes by itself and grants its share of the limit, at least one.
"""

import asyncio
import logging
from time import monotonic_ns

from gateway.context import RequestContext
from gateway.errors import RateLimited
from gateway.limits.advance import HELD_NS, Advance
from gateway.limits.scripts import script
from gateway.limits.told import Headers, told
from gateway.limits.window import SECOND_NS, SLOTS, Window, Windows
from gateway.metrics import Metrics
from gateway.redis_channel import RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink
from gateway.redis_part import RedisPart

log = logging.getLogger(__name__)

_ADMIT, _RETURN = script("window", "requests"), script("window", "return")


class RequestLimits:
    """A sliding window per key: no 60 s see more than the limit, and who always asks gets no less than 60/61 of it.

    Args:
        link: None where there is no Redis.
        workers: how many share a limit when each decides alone.
    """

    def __init__(self, link: RedisLink | None, workers: int, metrics: Metrics) -> None:
        self._link = link
        self._metrics = metrics
        # By tenant, key and limit: with another limit a key begins anew.
        self._shares = Windows[tuple[str, str, int], _Share](
            lambda key: _Share(key[2], workers), SLOTS * SECOND_NS * workers
        )
        self._advances = Windows[tuple[str, str, int], Advance](lambda key: Advance(key[2]), SLOTS * SECOND_NS)
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
        headers = self.admit_at_once(context)
        return headers if headers is not None else await self.ask(context)

    def admit_at_once(self, context: RequestContext) -> Headers | None:
        """What `admit` would return or raise, where Redis does not have to be asked for it; else None."""
        limit = context.requests_per_minute
        if self._link is None or limit is None:
            return self._admit_alone(context)
        return self._advances[context.tenant, context.key_name, limit].take()

    async def ask(self, context: RequestContext) -> Headers:
        """What `admit` does where `admit_at_once` has said None."""
        limit, link = context.requests_per_minute, self._link
        if link is None or limit is None:
            return self._admit_alone(context)
        advance = self._advances[context.tenant, context.key_name, limit]
        key = f"{TAG}:limit:rpm:{len(context.tenant)}:{context.tenant}/{context.key_name}"
        try:
            wanted, asked = advance.wanted()
            if wanted:
                self._give_back(key, advance)  # what its second has not seen
            wait_us, used, empty_in_us, more, second = await link.evaluate(_ADMIT, key, limit, wanted)
        except RedisUnavailable as error:
            self._redis.fails(error)
            self._metrics.limits_alone.inc()
            return self._admit_alone(context)
        self._redis.works()
        if more:
            advance.grant(asked, more, second, max(limit - used, 0), empty_in_us)
            asyncio.get_running_loop().call_later(HELD_NS / SECOND_NS, self._end, key, advance, advance.until)
        headers = told(b"requests", limit).headers(max(limit - used, 0) + more, -(-empty_in_us // 1000))
        if wait_us:
            raise _refusal(limit, wait_us / 1e6, headers)
        return headers

    def _end(self, key: str, advance: Advance, until: int) -> None:
        if advance.until == until:  # it is still the same
            self._give_back(key, advance)

    def _give_back(self, key: str, advance: Advance) -> None:
        """What is left of it."""
        left, advance.left = advance.left, 0
        if left and self._link is not None:
            self._link.tell_script(_given_back, _RETURN, key, left, advance.second)

    def _admit_alone(self, context: RequestContext) -> Headers:
        """The same out of this worker's share."""
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


def _given_back(error: RedisUnavailable | None) -> None:
    """What is not stays taken, which errs on the safe side."""
    if error is not None:
        log.info("what was granted in advance was not given back: %s", error)


def _refusal(limit: int, wait_s: float, headers: Headers) -> RateLimited:
    text = f"This key may make {limit} requests per minute; try again in {wait_s:.2f} seconds."
    return RateLimited(text, wait_s=wait_s, headers=headers)
