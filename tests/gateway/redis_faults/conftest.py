import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway import redis_channel, redis_follower, redis_link
from gateway.limits import usage
from tests.gateway.redis_faults.gateways import PARTS, Gateway, create_key, gateway
from tests.gateway.redis_faults.proxy import Proxy, proxy


@pytest.fixture(autouse=True)
def times(monkeypatch):
    """Sets the link's constants; a busy machine shall not run into the bound of an answer unless a test is about it."""

    def set_times(**values: float) -> None:
        for name, value in values.items():
            of = redis_channel if name in ("TIMEOUT", "STALLED") else redis_link
            monkeypatch.setattr(of, f"{name}_S", value)

    monkeypatch.setattr(usage, "FLUSH_S", 0.1)
    monkeypatch.setattr(redis_follower, "RETRY_S", 0.1)
    set_times(TIMEOUT=10.0, STALLED=20.0, CONNECT=10.0, RECONNECT=0.05)
    return set_times


@pytest.fixture
async def wire(redis_server) -> AsyncIterator[Proxy]:
    path = redis_server.url.removeprefix("unix://")
    async with proxy(lambda: asyncio.open_unix_connection(path)) as wire:
        yield wire


@pytest.fixture
async def busy(wire, redis_server, caplog) -> AsyncIterator[Gateway]:
    """A gateway all of whose parts work on Redis, over the wire."""
    caplog.set_level("INFO", "gateway")
    async with gateway(wire.url, create_key(redis_server.url)) as running:
        await running.settles(PARTS)
        caplog.clear()
        yield running


@pytest.fixture(autouse=True)
def openai_door_only(no_chains_and_skills: None) -> None:
    """No test of this folder looks at another door."""
