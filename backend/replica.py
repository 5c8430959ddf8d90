"""EngineReplica: what Ray Serve places, health-checks, restarts and stops. It owns one engine server process.

Ray is the control plane only: tokens go straight from the engine server to the gateway, which reads the directory.
"""

import asyncio
import logging
import os
import uuid
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import aiohttp
from starlette.requests import Request
from starlette.responses import Response

from backend import directory, proxy
from backend.engines import engines
from backend.server import EngineServer
from backend.spec import ModelSpec, Task

TASKS = {Task.CHAT: ("chat", "completions"), Task.EMBEDDINGS: ("embeddings",)}

log = logging.getLogger(__name__)


class EngineReplica:
    """One engine server and its place in the directory."""

    # Serve awaits the constructor of a deployment, which the type of __init__ cannot say.
    async def __init__(self, spec: ModelSpec) -> None:  # type: ignore[misc]
        self._leave = AsyncExitStack()
        engine = engines()[spec.engine]
        self._server = await EngineServer.start(spec, engine, threads=max(1, int(spec.resources.num_cpus)))
        self._leave.push_async_callback(self._server.stop)
        self._record = directory.Record(
            id=f"{spec.name}-{uuid.uuid4().hex[:12]}",
            model=spec.name,
            url=self._server.url,
            served_name=spec.name,
            engine=spec.engine,
            tasks=TASKS[spec.task],
            capabilities=engine.capabilities(spec),
            max_model_len=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
        )
        self._directory = directory.connect(os.environ.get("LLMGW_REDIS_URL"))
        await self._directory.publish(self._record)
        heartbeat = asyncio.create_task(self._heartbeat())
        self._leave.push_async_callback(_finish, heartbeat)

    async def _heartbeat(self) -> None:
        """Keeps the record fresh while the engine lives, and takes it out the moment the engine or the replica ends."""
        gone = asyncio.create_task(self._server.wait())
        try:
            while not (await asyncio.wait([gone], timeout=directory.HEARTBEAT_S))[0]:
                await self._directory.publish(await self._loaded())
        finally:
            gone.cancel()
            await self._directory.withdraw(self._record)

    async def _loaded(self) -> directory.Record:
        try:
            load = await self._server.load()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s: the engine's load cannot be read: %s", self._record.id, error)
            return self._record
        return replace(self._record, running=load.running, waiting=load.waiting)

    async def check_health(self) -> None:
        """Serve's health check: an engine that is gone or silent makes Ray replace this replica."""
        await self._server.check()

    async def __call__(self, request: Request) -> Response:
        return await proxy.forward(request, self._server.http, self._server.url)

    async def __del__(self) -> None:
        """Serve awaits this before the actor goes: out of the directory first, then the engine stops."""
        await self._leave.aclose()


async def _finish(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
