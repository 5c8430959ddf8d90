"""The gateway as an ASGI application: its layers in order, its routes, its lifespan; nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware import Middleware

from gateway import parts
from gateway.bridge import langserve, semantic_kernel
from gateway.completion.endpoint import Endpoint
from gateway.keys.ring import KeyRing
from gateway.middleware.auth import Authentication
from gateway.middleware.errors import ErrorResponses
from gateway.middleware.request_id import RequestId
from gateway.middleware.telemetry import Telemetry
from gateway.request_log import RequestLog
from gateway.routes import admin, chains, health, openai, openapi, sessions, skills
from gateway.routes.completions import CompletionEndpoint
from gateway.routes.framework_errors import translate_framework_errors
from gateway.routes.front import Gateway
from gateway.routing.directory import Directory
from gateway.server.leaving import Presence
from gateway.settings import Settings

# A worker that listens before it has read who serves what would refuse what another one answers.
_INFORMED_S = 5.0


def create_app(settings: Settings, presence: Presence | None = None) -> FastAPI:
    """Builds the application. Nothing is opened before its lifespan starts, so a process may fork after this."""
    presence = presence or Presence()
    own = parts.build(settings)
    request_log = RequestLog(own.metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as background:
            running = [background.create_task(run()) for run in own.runs]
            presence.informed = await _informed(own.directory, own.ring)
            yield
            *others, last = running
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            last.cancel()
        await own.client.aclose()
        request_log.flush()
        if own.redis is not None:
            await own.redis.aclose()

    app = Gateway(
        layers=[
            Middleware(RequestId),
            Middleware(Telemetry, request_log),
            Middleware(ErrorResponses),
            Middleware(Authentication, own.ring, settings.insecure, settings.loopback),
        ],
        raw={endpoint: CompletionEndpoint(endpoint, own.path) for endpoint in Endpoint},
        title="LLM access gateway",
        version=version("llm-access-gateway"),
        lifespan=lifespan,
        redoc_url=None,
    )
    translate_framework_errors(app)
    app.include_router(openai.router(own.path.catalog))
    app.include_router(chains.router(langserve.load(own.path, own.sessions)))
    app.include_router(sessions.router(own.sessions))
    app.include_router(skills.router(semantic_kernel.load(own.path)))
    app.include_router(admin.router(own.redis))
    app.include_router(health.router(own.directory, own.path.catalog, own.ring, own.metrics, request_log, presence))
    openapi.install(app)
    return app


async def _informed(directory: Directory, ring: KeyRing) -> bool:
    """Waits until what is in Redis has been read, or it is clear that Redis is away; returns which."""

    def unclear() -> bool:
        return directory.redis_state == "unknown" or not (ring.known or directory.redis_state == "away")

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_INFORMED_S):
            while unclear():  # noqa: ASYNC110 - two followers that may both fail, and once in a worker's life
                await asyncio.sleep(0.01)
    return ring.known and directory.redis_state in {"up", "none"}
