"""Directory records as the backend writes them."""

import json
from typing import Any

from redis.asyncio import Redis

from gateway.routing.directory import PREFIX


def record(id_: str, **changes: object) -> str:
    fields: dict[str, Any] = {
        "version": 1,
        "id": id_,
        "state": "ready",
        "model": "m",
        "url": "http://127.0.0.1:9000",
        "served_name": "m",
        "engine": "llamacpp",
        "tasks": ["chat", "completions"],
        "capabilities": [],
        "max_model_len": 4096,
        "max_num_seqs": 4,
        "revision": "r1",
        "running": 0,
        "waiting": 0,
        "kv_cache": 0.0,
        "measured_at": 0.0,
        "weight": 1.0,
        "priority": 0,
    }
    return json.dumps(fields | changes)


async def join(redis: Redis, id_: str, **changes: object) -> None:
    """A record comes, or changes."""
    await redis.set(f"{PREFIX}:replica:{id_}", record(id_, **changes), ex=10)
    await redis.sadd(f"{PREFIX}:replicas", id_)
    await redis.publish(f"{PREFIX}:changes", id_)


async def leave(redis: Redis, id_: str) -> None:
    await redis.delete(f"{PREFIX}:replica:{id_}")
    await redis.srem(f"{PREFIX}:replicas", id_)
    await redis.publish(f"{PREFIX}:changes", id_)
