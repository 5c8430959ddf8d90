"""What follows Redis ends when it is told to."""

import asyncio

import pytest

from gateway.redis_follower import follow
from gateway.redis_link import RedisLink
from tests.gateway.limits.links import fake_redis, polite
from tests.polling import eventually


async def test_a_cancellation_that_a_library_swallows_ends_it_all_the_same(redis):
    waits = asyncio.Event()

    async def refresh(*_: object) -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            waits.clear()

    task = asyncio.create_task(follow(redis, "changes", 0.05, refresh, lambda _: None))
    await waits.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=15)
    task.cancel()
    assert done == {task}
    assert not waits.is_set()


@pytest.mark.parametrize("connects", [True, False])
async def test_so_does_a_link_that_looks_for_the_master(monkeypatch, connects):
    asked = asyncio.Event()

    class Finder:
        async def find(self) -> tuple[str, int]:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not connects:
                    raise OSError("cancelled") from None
            return "127.0.0.1", server.port

    async with fake_redis(polite) as server:
        link = RedisLink(f"redis://{server.address}")
        monkeypatch.setattr(link, "_finder", Finder())
        task = asyncio.create_task(link.run())
        await asked.wait()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=15)
        task.cancel()
        assert done == {task}
        await eventually(lambda: server.open == 0)
