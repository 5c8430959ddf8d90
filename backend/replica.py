"""EngineReplica: what Ray Serve places, health-checks, restarts and stops. It owns one engine server process.

Ray is the control plane only: tokens go straight from the engine server to the gateway, which reads the directory.
"""

import asyncio
import logging
import os
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import aiohttp
import ray
from starlette.requests import Request
from starlette.responses import Response

from backend import cores, directory, proxy
from backend.engines import engines
from backend.engines.base import Engine, Place
from backend.ports import free_port
from backend.server import EngineServer
from backend.spec import ModelSpec, Task

TASKS = {Task.CHAT: ("chat", "completions"), Task.EMBEDDINGS: ("embeddings",), Task.SCORE: ("score",)}

log = logging.getLogger(__name__)


class EngineReplica:
    """One engine server and its place in the directory: one record for each of its names."""

    # Serve awaits the constructor of a deployment, which the type of __init__ cannot say.
    async def __init__(self, spec: ModelSpec) -> None:  # type: ignore[misc]
        self._leave = AsyncExitStack()
        engine = engines()[spec.engine]
        place = self._take_place(spec, engine)
        self._server = await EngineServer.start(spec, engine, place)
        self._leave.push_async_callback(self._server.stop)
        start = uuid.uuid4().hex[:12]
        self._records = [
            directory.Record(
                id=f"{name}-{start}",
                model=name,
                url=self._server.url,
                served_name=name,
                engine=spec.engine,
                tasks=TASKS[spec.task],
                capabilities=engine.capabilities(spec),
                max_model_len=spec.max_model_len,
                max_num_seqs=spec.max_num_seqs,
            )
            for name in engine.names(spec)
        ]
        self._directory = directory.connect(os.environ.get("LLMGW_REDIS_URL"))
        await self._directory.publish(self._records)
        heartbeat = asyncio.create_task(self._heartbeat())
        self._leave.push_async_callback(_finish, heartbeat)

    def _take_place(self, spec: ModelSpec, engine: Engine) -> Place:
        host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        threads = max(1, int(spec.resources.num_cpus))
        if not engine.pins_cores(spec):
            return Place(host, free_port(host), threads)
        mine = cores.Cores.take(threads)
        self._leave.callback(mine.close)
        return Place(host, free_port(host), threads, mine.ids)

    async def _heartbeat(self) -> None:
        """Keeps the records fresh while the engine lives, and takes them out the moment it or the replica ends."""
        gone = asyncio.create_task(self._server.wait())
        try:
            while not (await asyncio.wait([gone], timeout=directory.HEARTBEAT_S))[0]:
                await self._directory.publish(await self._loaded())
        finally:
            gone.cancel()
            await self._directory.withdraw(self._records)

    async def _loaded(self) -> Sequence[directory.Record]:
        try:
            load = await self._server.load()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("%s: the engine's load cannot be read: %s", self._records[0].id, error)
            return self._records
        return [replace(record, running=load.running, waiting=load.waiting) for record in self._records]

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
