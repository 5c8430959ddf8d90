"""A gateway that uses Redis for everything: keys, limits, quotas, the cache and usage."""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import httpx

from gateway import redis_address
from gateway.app import create_app
from gateway.keys.stored import KeyStore
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.raw_server import RawServer, raw_server, sized
from tests.polling import eventually

SECRET = "s" * 32
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
MESSAGE = {"role": "assistant", "content": "hello"}
ANSWER = json.dumps(
    {"object": "chat.completion", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}
    | {"usage": USAGE}
).encode()
PARTS = frozenset({"keys", "requests", "quotas", "cache", "cache_writes", "usage"})


class Gateway:
    """
    Attributes:
        answered: how many requests had a 200.
    """

    def __init__(self, client: httpx.AsyncClient, engine: RawServer) -> None:
        self.client = client
        self.engine = engine
        self.answered = 0
        self._words = count()

    async def ask(self) -> None:
        """Asks for what nobody has asked before, and for the same again; both are answered."""
        body = {"model": "m", "messages": [{"role": "user", "content": f"{next(self._words)}"}]}
        for _ in range(2):
            answer = await self.client.post("/v1/chat/completions", json=body)
            assert (answer.status_code, answer.content) == (200, ANSWER)
            self.answered += 1

    async def working(self) -> frozenset[str]:
        """The parts that work on Redis, by the gauge; `flights` only listens, and often does not notice."""
        text = (await self.client.get("/metrics")).text
        states = dict(re.findall(r'^llmgw_redis_in_use\{part="(\w+)"\} (\S+)$', text, re.MULTILINE))
        return PARTS & {part for part, state in states.items() if float(state) == 1}

    async def settles(self, expected: frozenset[str]) -> None:
        """Asks until exactly these parts work on Redis."""

        async def settled() -> bool:
            await self.ask()
            return await self.working() == expected

        await eventually(settled, within=30)

    async def counted(self) -> int:
        """The requests that usage has, however often they were sent to Redis."""
        answer = await self.client.get("/admin/usage")
        return sum(row["requests"] for row in answer.json()) if answer.is_success else -1

    async def all_counted(self) -> None:
        async def same() -> bool:
            return await self.counted() == self.answered

        await eventually(same)


@asynccontextmanager
async def gateway(url: str, key: str, **own: object) -> AsyncIterator[Gateway]:
    """
    Args:
        key: one that is in Redis (see `create_key`), or of its own settings.
    """
    async with raw_server(sized(ANSWER)) as engine:
        upstream = {"model": "m", "url": engine.url}
        settings = Settings.load(
            redis_url=url, key_secret=SECRET, upstreams=[upstream], workers=1, access_log=False, **own
        )
        headers = {"authorization": f"Bearer {key}"}
        async with (
            served(create_app(settings), lifespan="on") as base,
            httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as client,
        ):
            running = Gateway(client, engine)
            await eventually(lambda: _knows(client))
            yield running


async def _knows(client: httpx.AsyncClient) -> bool:
    return (await client.get("/v1/models")).is_success


def key(secret: str, **fields: object) -> dict[str, object]:
    """A key of the settings."""
    digest = f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
    return {"name": secret, "tenant": "team", "hash": digest, "admin": True, "cache": "always"} | fields


def create_key(url: str) -> str:
    """A key with every kind of limit, none of them in the way."""
    many = 10**6
    limits = {"requests_per_minute": many, "tokens_per_minute": 10**9, "concurrency": many, "tokens_per_day": 10**9}
    with redis_address.blocking_client(url, timeout_s=5) as redis:
        store = KeyStore(redis, SECRET.encode())
        return store.create(name="alice", tenant="team", admin=True, cache="always", **limits)[1]


def told(caplog) -> Callable[[], list[str]]:
    """What the parts have said of Redis since the last clear, without the reasons."""
    loggers = ("gateway.redis", "gateway.limits", "gateway.cache", "gateway.keys", "gateway.routing")
    return lambda: [
        record.getMessage().partition(" (")[0] for record in caplog.records if record.name.startswith(loggers)
    ]
