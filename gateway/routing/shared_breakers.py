"""Open breakers are told to all gateways through Redis, so that a failing replica costs one of them some requests.

    {llmgw}:breakers:open     a sorted set: replicas' ids, by the time (Redis', in milliseconds) when it is over
    {llmgw}:breakers:changes  pub/sub: an id, when its breaker has opened or closed

Each gateway opens its own breaker on that word, unless it has just had an answer from the replica, and sends its own
probe: one that cannot reach a replica takes it from nobody who can. Without Redis each is on its own.
"""

import asyncio
import logging
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.redis_cluster import TAG
from gateway.redis_follower import follow, stopping, text
from gateway.routing.router import Router
from gateway.routing.standing import Standing

OPEN, CHANGES = f"{TAG}:breakers:open", f"{TAG}:breakers:changes"
POLL_S = 1.0
# Words that could not be told are forgotten: by then they are old.
MAX_UNTOLD = 100
_TELL = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if tonumber(ARGV[2]) > 0 then redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
else redis.call('ZREM', KEYS[1], ARGV[1]) end
return redis.call('PUBLISH', KEYS[2], ARGV[1])
"""

log = logging.getLogger(__name__)


class SharedBreakers:
    """
    Args:
        redis: None when this gateway has no Redis.
    """

    def __init__(self, router: Router, redis: Redis | None) -> None:
        self._router = router
        self._redis = redis
        self._words: asyncio.Queue[tuple[str, int]] = asyncio.Queue(MAX_UNTOLD)
        if redis is not None:
            router.listeners.append(self._note)

    async def run(self) -> None:
        """Tells and listens until cancelled."""
        if self._redis is not None:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._tell(self._redis))
                both.create_task(follow(self._redis, CHANGES, POLL_S, self._refresh, self._on_away))

    def _note(self, standing: Standing) -> None:
        breaker = standing.breaker
        if breaker.told or self._words.full():  # what others have told is not told again
            return
        milliseconds = 0 if breaker.closed else int(1000 * (breaker.until - self._router.clock()))
        self._words.put_nowait((standing.replica.id, milliseconds))

    async def _tell(self, redis: Redis) -> None:
        tell = redis.register_script(_TELL)
        while not stopping():
            id_, milliseconds = await self._words.get()
            try:
                await tell(keys=[OPEN, CHANGES], args=[id_, milliseconds])
            except (RedisError, OSError, TimeoutError) as error:
                log.info("the breaker of %s cannot be told (%s)", id_, type(error).__name__)

    async def _refresh(self, redis: Redis, _changed: Sequence[str]) -> None:
        async with redis.pipeline(transaction=False) as both:
            both.time()
            both.zrange(OPEN, 0, -1, withscores=True)
            (seconds, microseconds), found = await both.execute()
        left_s = {text(id_): until / 1000 - seconds - microseconds / 1e6 for id_, until in found}
        now = self._router.clock()
        for id_, standing in self._router.standings.items():
            if left_s.get(id_, 0.0) > 0:
                standing.breaker.told_open(left_s[id_], now)
            elif not standing.breaker.closed and now < standing.breaker.until:
                self._note(standing)  # its health has kept it open for longer, or Redis has lost the word

    def _on_away(self, error: Exception) -> None:
        log.debug("breakers are not shared while Redis is away (%s)", type(error).__name__)
