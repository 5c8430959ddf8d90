"""What follows Redis ends when it is told to."""

import asyncio

from gateway.redis_follower import follow


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
