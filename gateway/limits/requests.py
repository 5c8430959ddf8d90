"""How many completions a key may ask for in a minute, over all workers and machines together.

The count is in Redis. With Redis away each worker goes by itself and grants its share of the limit, at least one.
"""

import logging
import time
from importlib import resources

from gateway.context import RequestContext
from gateway.errors import RateLimited
from gateway.limits.told import Headers, told
from gateway.metrics import Metrics
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink, RedisUnavailable, Script
from gateway.redis_part import RedisPart

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
        self._redis = RedisPart(
            "requests", metrics, log, "request limits are counted in Redis", "request limits are counted per worker"
        )

    async def admit(self, context: RequestContext) -> Headers:
        """What the answer tells of the limit: nothing where there is none.

        Raises:
            RateLimited: the key has used up its minute.
        """
        limit = context.requests_per_minute
        if limit is None:
            return ()
        if self._link is None:
            return self._admit_alone(context, limit)
        key = f"{TAG}:limit:requests:{len(context.tenant)}:{context.tenant}/{context.key_name}"
        each = max(_MINUTE_US // limit, 1)
        try:
            full_in: int = await self._link.evaluate(_BUCKET, key, each, limit)
        except RedisUnavailable as error:
            self._redis.fails(error)
            self._metrics.limits_alone.inc()
            return self._admit_alone(context, limit)
        self._redis.works()
        return _verdict(limit, full_in, each, each * limit)

    def _admit_alone(self, context: RequestContext, limit: int) -> Headers:
        """The same bucket, with this worker's share of it."""
        now, each = time.monotonic() * 1e6, _MINUTE_US * self._workers / limit
        bucket, capacity = (context.tenant, context.key_name), max(_MINUTE_US, each)
        full_in = max(self._full_at.get(bucket, 0.0) - now, 0.0) + each
        if full_in - capacity >= 1:  # of a microsecond, less is rounding
            return _verdict(limit, capacity - full_in, each, capacity)
        self._full_at[bucket] = now + full_in
        return told(b"requests", limit, (capacity - full_in) / each, full_in)


def _verdict(limit: int, full_in_us: float, each_us: float, capacity_us: float) -> Headers:
    """
    Args:
        full_in_us: as requests.lua returns it.
        each_us, capacity_us: of one request, and of all that the bucket holds.
    """
    if full_in_us >= 0:
        return told(b"requests", limit, (capacity_us - full_in_us) / each_us, full_in_us)
    wait_s = -full_in_us / 1e6
    raise RateLimited(
        f"This key may make {limit} requests per minute; try again in {wait_s:.2f} seconds.",
        wait_s=wait_s,
        # The bucket is as it was: what is wanted, less what is missing of it.
        headers=told(b"requests", limit, 0, capacity_us - full_in_us - each_us),
    )
