"""How many completions a key may ask for in a minute, over all workers and machines together.

The count is in Redis. With Redis away each worker goes by itself and grants its share of the limit, at least one.
"""

import logging
import time
from importlib import resources

from gateway.context import RequestContext
from gateway.errors import RateLimited
from gateway.metrics import Metrics
from gateway.redis_link import RedisLink, RedisUnavailable, Script

log = logging.getLogger(__name__)

_BUCKET = Script(resources.files("gateway.limits").joinpath("requests.lua").read_text())
_MINUTE_US = 60_000_000


class RequestLimits:
    """A token bucket per key: as many at once as the limit says, refilled evenly over a minute.

    Args:
        link: None where there is no Redis.
        workers: how many share a limit when each decides alone.
    """

    def __init__(self, link: RedisLink | None, workers: int, metrics: Metrics) -> None:
        self._link = link
        self._workers = workers
        self._metrics = metrics
        self._full_at: dict[tuple[str, str], float] = {}
        self._alone = False

    async def admit(self, context: RequestContext) -> None:
        """Raises RateLimited when the key has used up its minute."""
        limit = context.requests_per_minute
        if limit is None:
            return
        wait_us = await self._wait_us(self._link, context, limit) if self._link else self._wait_alone_us(context, limit)
        if wait_us:
            raise RateLimited(
                f"This key may make {limit} requests per minute; try again in {wait_us / 1e6:.2f} seconds.",
                limit=limit,
                wait_s=wait_us / 1e6,
            )

    async def _wait_us(self, link: RedisLink, context: RequestContext, limit: int) -> float:
        key = f"llmgw:limit:requests:{{{len(context.tenant)}:{context.tenant}/{context.key_name}}}"
        try:
            wait_us: int = await link.evaluate(_BUCKET, key, max(_MINUTE_US // limit, 1), limit)
        except RedisUnavailable as error:
            self._set_alone(True, str(error))
            self._metrics.limits_alone.inc()
            return self._wait_alone_us(context, limit)
        self._set_alone(False, "Redis answers")
        return wait_us

    def _wait_alone_us(self, context: RequestContext, limit: int) -> float:
        """The same bucket, with this worker's share of it."""
        now, each = time.monotonic() * 1e6, _MINUTE_US * self._workers / limit
        bucket = context.tenant, context.key_name
        full_at = max(self._full_at.get(bucket, 0.0), now) + each
        over = full_at - now - max(_MINUTE_US, each)
        if over > 0:
            return over
        self._full_at[bucket] = full_at
        return 0

    def _set_alone(self, alone: bool, reason: str) -> None:
        if alone is not self._alone:
            level = logging.WARNING if alone else logging.INFO
            log.log(level, "request limits are %s (%s)", "counted per worker" if alone else "counted in Redis", reason)
        self._alone = alone
