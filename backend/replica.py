"""EngineReplica: what Ray Serve places, health-checks, scales, restarts and stops. It owns one engine server.

Ray is the control plane only: tokens go straight from the engine server to the gateway, which reads the directory.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from backend import directory, proxy
from backend.autoscale import LOAD
from backend.engines import engines
from backend.gang import Gang
from backend.placement import place
from backend.presence import Presence
from backend.server import EngineFailed, EngineServer
from backend.spec import ModelSpec

# A gateway reads the directory at least this often, even when the word that it has changed is lost.
NOTICE_S = 1.0
DRAIN_POLL_S = 0.2

log = logging.getLogger(__name__)


class EngineReplica:
    """One engine server with its parts on other nodes, and its presence in the directory."""

    # Serve awaits the constructor of a deployment, which the type of __init__ cannot say.
    async def __init__(self, spec: ModelSpec) -> None:  # type: ignore[misc]
        self._spec = spec
        self._leave = AsyncExitStack()
        try:
            await self._start()
        except BaseException:
            await self._leave.aclose()
            raise

    async def _start(self) -> None:
        spec, engine = self._spec, engines()[self._spec.engine]
        here = self._leave.enter_context(place(spec, engine))
        records = directory.records(spec, uuid.uuid4().hex[:12], directory.State.STARTING, here.url)
        self._presence = await Presence.announce(directory.connect(os.environ.get("LLMGW_REDIS_URL")), records)
        self._leave.push_async_callback(self._presence.leave)
        self._gang = Gang.gather(spec, here.share)
        self._leave.push_async_callback(self._gang.stop)
        self._server: EngineServer = await _first(EngineServer.start(spec, engine, here), self._gang.watch())
        self._leave.push_async_callback(self._server.stop)
        self._watch = asyncio.create_task(self._tell_when_gone())
        await self._presence.ready(self._server.load)
        self._leave.push_async_callback(self._drain)

    async def _tell_when_gone(self) -> None:
        """The record stays until Serve has stopped this replica: the model is known, and its requests wait."""
        with suppress(EngineFailed):  # which the health check tells
            await _first(self._server.watch(), self._gang.watch())
        await self._presence.lost()

    async def check_health(self) -> None:
        """Serve's health check: an engine that is gone, in part or whole, or silent makes Ray replace this replica."""
        self._gang.check()
        await self._server.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's autoscaling reads this, for `backend.autoscale`: requests that the engine works on or has waiting."""
        load = await self._server.load()
        return {LOAD: load.running + load.waiting}

    async def __call__(self, request: Request) -> Response:
        return await proxy.forward(request, self._server.http, self._server.url)

    async def __del__(self) -> None:
        """Serve awaits this before the actor goes: no new requests, those that run end, then the engine stops."""
        await self._leave.aclose()

    async def _drain(self) -> None:
        if self._watch.done():
            return
        await self._presence.drain()
        try:
            async with asyncio.timeout(self._spec.drain_timeout_s):
                await asyncio.sleep(NOTICE_S)
                quiet = 0
                # Twice, for what has just ended may still be on its way out.
                while quiet < 2:
                    quiet = 0 if await self._server.busy() else quiet + 1
                    await asyncio.sleep(DRAIN_POLL_S)
        except TimeoutError:
            log.warning("%s: stopped with requests under way after %g s", self._spec.name, self._spec.drain_timeout_s)


async def _first(*works: Coroutine[Any, Any, Any]) -> Any:
    """The outcome of the first that ends; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
