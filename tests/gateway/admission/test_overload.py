"""Five times as many clients as the engine can serve, on two workers: it stays busy, and nobody waits without end.

The engine's time is counted in ticks, so nothing here depends on how fast this machine is.
"""

import asyncio
from contextlib import AsyncExitStack

import httpx

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.admission.engine import Engine, running
from tests.gateway.admission.test_door import ASK
from tests.gateway.doors import served

CAPACITY, TICKS, ROUNDS = 8, 3, 60
CLIENTS = 5 * CAPACITY
QUEUE_MAX = CAPACITY
# What two workers send on at most; of an engine that takes no more, nothing comes back as a refusal.
ROOM = 2 * CAPACITY


class Load:
    """Clients that ask again as soon as they are answered, and when they are refused, a tick later."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.waits: list[int] = []
        self.statuses: list[int] = []

    async def client(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                began = len(self.engine.busy)
                answer = await client.post("/v1/chat/completions", json=ASK)
                self.statuses.append(answer.status_code)
                if answer.is_success:
                    self.waits.append(len(self.engine.busy) - began)
                else:
                    assert "retry-after" in answer.headers
                    await self.engine.ticked.wait()


async def test_at_five_times_the_capacity_the_engine_is_busy_and_waits_are_bounded():
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(running(Engine(CAPACITY, TICKS, ROOM)))
        upstreams = [{"model": "m", "url": engine.url, "max_concurrency": CAPACITY}]
        settings = Settings.load(upstreams=upstreams, workers=2, queue_max_requests=QUEUE_MAX)
        urls = [await stack.enter_async_context(served(create_app(settings))) for _ in range(2)]
        load = Load(engine)
        clients = [asyncio.create_task(load.client(urls[number % 2])) for number in range(CLIENTS)]
        stack.callback(lambda: [client.cancel() for client in clients])
        not_full = 0
        for _ in range(ROUNDS * TICKS):
            not_full += not await engine.full()
            assert not_full <= 0.1 * ROUNDS * TICKS
            engine.tick()
        assert not any(client.done() for client in clients)
    # Goodput: the engine works on as much as it can, all the time, and on nothing that comes to nothing.
    assert sum(engine.busy) >= 0.9 * CAPACITY * len(engine.busy)
    assert engine.served * TICKS >= 0.9 * CAPACITY * len(engine.busy)
    assert engine.refused == 0
    # More wanted to come than there is room for, and they were told.
    assert set(load.statuses) == {200, 503}
    # Whoever was let in waited for those before it, at the engine and in the two queues, and for no one else.
    waits = sorted(load.waits)
    most_before = ROOM + 2 * QUEUE_MAX
    assert waits[int(0.99 * len(waits))] <= TICKS * (most_before / CAPACITY + 2)
