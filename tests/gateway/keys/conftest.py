from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from redis import Redis

from gateway.app import create_app
from gateway.keys.stored import KeyStore
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.raw_server import raw_server, sized
from tests.polling import eventually

SECRET = "s" * 32


@pytest.fixture
def store(redis_server):
    with Redis.from_url(redis_server.url) as redis:
        yield KeyStore(redis, SECRET.encode())


@pytest.fixture
async def gateways(redis_server) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as running:
        engine = await running.enter_async_context(raw_server(sized(b'{"id":"c","choices":[]}')))
        upstreams = [{"model": name, "url": engine.url} for name in ("m", "other")]
        settings = Settings.load(redis_url=redis_server.url, key_secret=SECRET, upstreams=upstreams)
        clients = []
        for _ in range(2):
            base = await running.enter_async_context(served(create_app(settings), lifespan="on"))
            clients.append(await running.enter_async_context(httpx.AsyncClient(base_url=base)))
        for client in clients:
            await eventually(lambda client=client: ready(client))
        yield clients


async def ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).is_success


async def status(client: httpx.AsyncClient, key: str | None, path: str = "/v1/models") -> int:
    return (await client.get(path, headers={"authorization": f"Bearer {key}"} if key else {})).status_code


async def known(gateways, key: str) -> None:
    """Returns once every gateway has read the key: before that, one without any key lets everybody in."""
    await eventually(lambda: all_say(gateways, None, 401))
    await eventually(lambda: all_say(gateways, key, 200))


async def all_say(gateways, key: str | None, expected: int) -> bool:
    return [await status(client, key) for client in gateways] == [expected] * 2
