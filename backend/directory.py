"""The live list of replicas in Redis: this side writes it, the gateway reads it.

    {llmgw}:directory:replica:<id>   one record as JSON, with an expiry that every heartbeat renews
    {llmgw}:directory:replicas       the set of ids
    {llmgw}:directory:changes        pub/sub: an id, when its record has come, changed its state or gone
    {llmgw}:directory:demand:<model> the gateway's word that requests wait for a model (`doorbell.py` reads it)

The braces make all that the gateways and we have in Redis one hash slot of a Redis Cluster.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend import redis_address
from backend.engines import engines
from backend.redis_cluster import TAG
from backend.spec import ModelSpec

PREFIX = f"{TAG}:directory"
HEARTBEAT_S = 2.0
EXPIRY_S = 10

log = logging.getLogger(__name__)


class State(StrEnum):
    """Where a replica stands. The gateway asks only a ready one; the others say that the model is there or will be."""

    ASLEEP = "asleep"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Record:
    """One replica as the gateway sees it, or a model that sleeps, which has none.

    Attributes:
        id: unique per replica start.
        model: the public model name; `served_name` is the engine's own name for it.
        url: the engine server's address, no path, no trailing slash; empty for a model that sleeps.
        revision: which weights and options answer; with another one, answers that were kept are of no use.
        weight, priority: the operator's word on its share, see ModelSpec.
        running, waiting, kv_cache: its load, see Load.
        measured_at: when the load was read, in seconds since the epoch; it tells a new reading from an old one.
    """

    id: str
    state: State
    model: str
    url: str
    served_name: str
    engine: str
    tasks: Sequence[str]
    capabilities: Sequence[str]
    max_model_len: int
    max_num_seqs: int
    revision: str
    weight: float = 1.0
    priority: int = 0
    running: int = 0
    waiting: int = 0
    kv_cache: float = 0.0
    measured_at: float = 0.0
    version: int = 1


def records(spec: ModelSpec, suffix: str, state: State, url: str = "") -> list[Record]:
    """A record for each name that a server of `spec` answers for; the ids end in `suffix`."""
    engine = engines()[spec.engine]
    return [
        Record(
            id=f"{name}-{suffix}",
            state=state,
            model=spec.served_as if spec.served_as and name == spec.name else name,
            url=url,
            served_name=name,
            engine=spec.engine,
            tasks=engine.serves(spec),
            capabilities=engine.capabilities(spec),
            max_model_len=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
            revision=spec.revision,
            weight=spec.weight,
            priority=spec.priority,
        )
        for name in engine.names(spec)
    ]


class Directory(Protocol):
    async def publish(self, records: Sequence[Record]) -> None:
        """Puts the records in the directory or renews them, until EXPIRY_S from now. Does not raise."""

    async def withdraw(self, records: Sequence[Record]) -> None:
        """Takes the records out and closes the directory. Does not raise."""


class NullDirectory:
    """Without a Redis nobody is told; Serve's own route still reaches the replica."""

    async def publish(self, records: Sequence[Record]) -> None:
        pass

    async def withdraw(self, records: Sequence[Record]) -> None:
        pass


class RedisDirectory:
    """Redis may go and come back: every heartbeat tries again, and a record that was lost is announced anew."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away = False

    async def publish(self, records: Sequence[Record]) -> None:
        try:
            for record in records:
                await self._renew(record)
        except (RedisError, OSError) as error:
            if not self._away:
                # Its words may repeat what was sent, the password too.
                log.warning("directory: Redis is away (%s), %s keeps trying", type(error).__name__, records[0].id)
            self._away = True
        else:
            if self._away:
                log.warning("directory: Redis is back, %s is registered again", records[0].id)
            self._away = False

    async def _renew(self, record: Record) -> None:
        key = f"{PREFIX}:replica:{record.id}"
        async with self._redis.pipeline(transaction=True) as transaction:
            transaction.set(key, json.dumps(asdict(record)), ex=EXPIRY_S, get=True)
            # With each heartbeat: after one whose answer was lost nobody knows whether it was the first.
            transaction.sadd(f"{PREFIX}:replicas", record.id)
            before, added = await transaction.execute()
        if before is None or added or json.loads(before)["state"] != record.state:
            await self._redis.publish(f"{PREFIX}:changes", record.id)
        if before is None:
            await self._sweep()

    async def _sweep(self) -> None:
        """Takes out the ids of replicas that were killed: their records have expired."""
        for id_ in await self._redis.smembers(f"{PREFIX}:replicas"):
            if not await self._redis.exists(f"{PREFIX}:replica:{id_!s}"):
                await self._redis.srem(f"{PREFIX}:replicas", id_)

    async def withdraw(self, records: Sequence[Record]) -> None:
        try:
            async with self._redis.pipeline(transaction=True) as transaction:
                for record in records:
                    transaction.delete(f"{PREFIX}:replica:{record.id}")
                    transaction.srem(f"{PREFIX}:replicas", record.id)
                    transaction.publish(f"{PREFIX}:changes", record.id)
                await transaction.execute()
        except (RedisError, OSError) as error:
            log.warning("directory: %s could not leave (%s), its record expires", records[0].id, type(error).__name__)
        finally:
            await self._redis.aclose()


def connect(url: str | None) -> Directory:
    """The directory at a Redis URL (`redis_address.py` has the forms), or none."""
    if not url:
        return NullDirectory()
    return RedisDirectory(redis_address.client(url, HEARTBEAT_S, decode_responses=True, encoding_errors="replace"))
