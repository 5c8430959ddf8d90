"""An engine with a known capacity that suffers under more: beyond twice what it works on at once, it thrashes.

That is what an engine does whose memory for running requests is too small: it starts over what it had to put aside.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

ANSWER = b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'
TICK_S = 0.005


class Engine:
    """
    Args:
        capacity: requests it works on at full speed.
        service_s: what one of them takes then.
    """

    def __init__(self, capacity: int, service_s: float) -> None:
        self._capacity = capacity
        self._service_s = service_s
        self._open: dict[asyncio.Future[None], float] = {}

    async def answer(self, _: web.Request) -> web.Response:
        done = asyncio.get_running_loop().create_future()
        self._open[done] = self._service_s
        try:
            await done
        finally:
            self._open.pop(done, None)
        return web.Response(body=ANSWER, content_type="application/json")

    async def _work(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            waiting = len(self._open)
            speed = min(1.0, self._capacity / max(1, waiting)) * min(1.0, 2 * self._capacity / max(1, waiting))
            for done in tuple(self._open):
                self._open[done] -= (now - last) * speed
                if self._open[done] <= 0:
                    del self._open[done]
                    if not done.done():
                        done.set_result(None)
            last = now

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Yields its URL."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        work = asyncio.create_task(self._work())
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await runner.cleanup()
