"""The live list of replicas: static upstreams, and what the backend writes into Redis.

The contract with the writer (backend/directory.py; held by tests/test_contracts.py):
`{llmgw}:directory:replicas` is the set of ids, `{llmgw}:directory:replica:<id>` a JSON record that expires without
heartbeats, the channel `{llmgw}:directory:changes` carries the id of a record that came, changed its state or left,
and `{llmgw}:directory:demand:<model>` wakes a model that sleeps.

With Redis away the last known replicas stay. After it returns nothing is forgotten for one record's lifetime, since
a restarted Redis is empty until the next heartbeats.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.metrics import Metrics
from gateway.redis_cluster import TAG
from gateway.redis_follower import follow, text
from gateway.routing.pool import Pool, pools
from gateway.routing.replica import Record, Replica

PREFIX = f"{TAG}:directory"
EXPIRY_S = 10.0
# For how long a model without a replica is expected back: Ray finds room for another and starts its process meanwhile.
REPLACED_S = 30.0
POLL_S = 1.0

log = logging.getLogger(__name__)


class Directory:
    """Replicas by model. Reads are plain look-ups; `run` keeps them fresh.

    Args:
        static: replicas that are always there.
        redis: None when this gateway has no Redis.
        engine_key: the bearer token for every replica of the directory.
    """

    def __init__(
        self, static: Iterable[Replica], redis: Redis | None, engine_key: str | None, metrics: Metrics
    ) -> None:
        self._static = tuple(static)
        self._redis = redis
        self._engine_key = engine_key
        self._metrics = metrics
        self._live: dict[str, Record] = {}
        self._left: dict[str, tuple[Record, float]] = {}
        self._pools: Mapping[str, Pool] = {}
        self._keep_until = 0.0
        self._unusable: set[str] = set()
        self._refreshed = asyncio.Event()
        self.redis_state = "none" if redis is None else "unknown"
        self._index([])

    def pool(self, model: str) -> Pool | None:
        """Who serves a model; None when nobody does, did a moment ago or is about to."""
        return self._pools.get(model)

    def models(self) -> Iterable[str]:
        return self._pools.keys()

    async def refreshed(self) -> None:
        """Returns when the directory has been read again."""
        await self._refreshed.wait()

    async def demand(self, model: str) -> None:
        """Tells the backend that requests wait for this model; it is to be told again before EXPIRY_S."""
        if self._redis is not None:
            try:
                await self._redis.set(f"{PREFIX}:demand:{model}", 1, ex=int(EXPIRY_S))
            except (RedisError, OSError, TimeoutError) as error:
                # Its words may repeat what was sent, the password too.
                log.info("the demand for %s cannot be told: %s", model, type(error).__name__)

    async def run(self) -> None:
        """Follows the directory until cancelled: at once on a change, and every POLL_S."""
        if self._redis is not None:
            await follow(self._redis, f"{PREFIX}:changes", POLL_S, self._refresh, self._on_away)

    def _on_away(self, error: Exception) -> None:
        self._set_state("away", f"Redis is away ({type(error).__name__}); serving the last known replicas")

    async def _refresh(self, redis: Redis, changed: Sequence[str]) -> None:
        for id_ in changed:
            self._remember(self._live.pop(id_, None))  # gone, or read anew just below
        ids = sorted(text(id_) for id_ in await redis.smembers(f"{PREFIX}:replicas"))
        values = await redis.mget([f"{PREFIX}:replica:{id_}" for id_ in ids]) if ids else []
        now = asyncio.get_running_loop().time()
        if self.redis_state != "up":
            self._keep_until = now + EXPIRY_S
            self._set_state("up", "Redis answers")
        found = {id_: record for id_, value in zip(ids, values, strict=True) if (record := self._parse(id_, value))}
        if now < self._keep_until:
            found = {**self._live, **found}
        for id_ in self._live.keys() - found.keys():
            self._remember(self._live[id_])
        self._live = found
        self._left = {model: left for model, left in self._left.items() if now < left[1]}
        self._index([record for record, _ in self._left.values()])

    def _remember(self, record: Record | None) -> None:
        """A model that loses a replica is still expected for a moment: Ray is about to put another in its place."""
        if record is not None:
            self._left[record.model] = record, asyncio.get_running_loop().time() + REPLACED_S

    def _parse(self, id_: str, value: bytes | str | None) -> Record | None:
        if value is None:
            return None
        try:
            return Record.model_validate_json(value)
        except ValueError as error:
            if id_ not in self._unusable:
                log.warning("directory record %s is not usable: %s", id_, " ".join(str(error).split()))
            self._unusable.add(id_)
            return None

    def _index(self, left: Sequence[Record]) -> None:
        self._pools = pools(self._static, self._live.values(), left, self._engine_key)
        self._metrics.replicas_changed({model: pool.size for model, pool in self._pools.items()})
        self._refreshed.set()
        self._refreshed = asyncio.Event()

    def _set_state(self, state: str, message: str) -> None:
        if state != self.redis_state:
            log.log(logging.INFO if state == "up" else logging.WARNING, message)
        self.redis_state = state
        self._metrics.redis_up.set(state == "up")
