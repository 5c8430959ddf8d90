"""The gateway as an ASGI application: its layers in order, its routes, its lifespan; nothing else."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import version

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware import Middleware

from gateway import redis_address
from gateway.bridge import langserve, semantic_kernel
from gateway.cache.exact import ExactCache
from gateway.cache.mail import Mail
from gateway.completion.admission import Admission
from gateway.completion.caching import Caching
from gateway.completion.call import CompletionPath
from gateway.completion.catalog import Catalog
from gateway.completion.dispatch import Dispatch
from gateway.completion.fallbacks import Fallbacks
from gateway.completion.flights import Flights
from gateway.completion.metering import Metering
from gateway.completion.request import Endpoint
from gateway.completion.retries import RuleBook
from gateway.completion.semantic import Semantic
from gateway.completion.singleflight import SingleFlight
from gateway.keys.ring import KeyRing
from gateway.limits.requests import RequestLimits
from gateway.limits.reservations import Reservations
from gateway.limits.usage import Ledger
from gateway.metrics import Metrics
from gateway.middleware.auth import Authentication
from gateway.middleware.errors import ErrorResponses
from gateway.middleware.request_id import RequestId
from gateway.middleware.telemetry import Telemetry
from gateway.redis_link import RedisLink
from gateway.request_log import RequestLog
from gateway.routes import admin, chains, health, openai, openapi, sessions, skills
from gateway.routes.framework_errors import translate_framework_errors
from gateway.routes.front import Gateway
from gateway.routing.arrivals import Arrivals
from gateway.routing.directory import Directory
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.routing.shared_breakers import SharedBreakers
from gateway.routing.watch import Watch
from gateway.server.leaving import Presence
from gateway.sessions.store import Sessions
from gateway.settings import Settings
from gateway.upstream.aiohttp_client import AiohttpClient
from gateway.upstream.client import UpstreamClient
from gateway.upstream.health import HealthCheck
from gateway.upstream.http1 import HttpClient
from gateway.upstream.timeouts import Timeouts

# A worker that listens before it has read who serves what would refuse what another one answers.
_INFORMED_S = 5.0


def create_app(settings: Settings, presence: Presence | None = None) -> FastAPI:
    """Builds the application. Nothing is opened before its lifespan starts, so a process may fork after this."""
    presence = presence or Presence()
    metrics = Metrics()
    request_log = RequestLog(metrics)
    redis = _redis(settings)
    client = _upstream_client(settings)
    static = [Replica.from_upstream(upstream, number) for number, upstream in enumerate(settings.upstreams)]
    engine_key = settings.engine_key.get_secret_value() if settings.engine_key else None
    directory = Directory(static, redis, engine_key, metrics)
    catalog = Catalog(directory, settings.models, int(time.time()))
    link = RedisLink(settings.redis_url.get_secret_value()) if settings.redis_url else None
    limits = RequestLimits(link, settings.workers, metrics)
    ring = _key_ring(settings, redis, metrics)
    cache = ExactCache(link, settings.cache_ttl_s, settings.cache_max_answer_bytes, metrics)
    arrivals = Arrivals(directory, settings.replica_wait_s, metrics)
    queue = (settings.queue_max_requests, settings.queue_wait_s)
    admission = Admission(directory, settings.workers, *queue, metrics)
    router = Router(settings.routing_policy, settings.routing, metrics)
    breakers, watch = SharedBreakers(router, redis), Watch(router, directory, HealthCheck())
    rules = _rules(settings)
    fallbacks = Fallbacks(rules, directory)
    dispatch = Dispatch(arrivals, admission, router, client, rules, fallbacks, metrics)
    mail = Mail(redis if cache.on else None)
    flights = Flights(cache, mail)
    semantic = Semantic.of(settings, link, cache, dispatch, directory.pool, metrics)
    caching = Caching(cache, mail, metrics, paced=settings.cache_replay == "paced", semantic=semantic)
    ledger, reservations = Ledger(redis, metrics), Reservations(link, settings.workers, metrics)
    metering, single = Metering(limits, reservations, ledger), SingleFlight(cache, flights)
    path = CompletionPath(catalog, fallbacks, metering, caching, single, dispatch)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as background:
            runs = [flights.run(), directory.run(), admission.run(), ring.run(), ledger.run(), reservations.run()]
            runs += [breakers.run(), watch.run(), *([link.run()] if link else [])]
            followers = [background.create_task(run) for run in runs]
            presence.informed = await _informed(directory, ring)
            yield
            for follower in followers:
                follower.cancel()
        await client.aclose()
        request_log.flush()
        if redis is not None:
            await redis.aclose()

    app = Gateway(
        layers=[
            Middleware(RequestId),
            Middleware(Telemetry, request_log),
            Middleware(ErrorResponses),
            Middleware(Authentication, ring, settings.insecure, settings.loopback),
        ],
        raw={endpoint: openai.CompletionEndpoint(endpoint, path) for endpoint in Endpoint},
        title="LLM access gateway",
        version=version("llm-access-gateway"),
        lifespan=lifespan,
        redoc_url=None,
    )
    translate_framework_errors(app)
    app.include_router(openai.router(catalog))
    store = Sessions(link, settings.session_ttl_s, settings.session_max_messages)
    app.include_router(chains.router(langserve.load(path, store)))
    app.include_router(sessions.router(store))
    app.include_router(skills.router(semantic_kernel.load(path)))
    app.include_router(admin.router(redis))
    app.include_router(health.router(directory, catalog, ring, metrics, request_log, presence))
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


def _key_ring(settings: Settings, redis: Redis | None, metrics: Metrics) -> KeyRing:
    if settings.key_secret is None:
        return KeyRing(settings.keys, None, b"", metrics)
    return KeyRing(settings.keys, redis, settings.key_secret.get_secret_value().encode(), metrics)


def _upstream_client(settings: Settings) -> UpstreamClient:
    timeouts = _timeouts(settings)
    return HttpClient(timeouts) if settings.http_client == "native" else AiohttpClient(timeouts)


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        settings.connect_timeout_s,
        settings.first_byte_timeout_s,
        settings.first_token_timeout_s,
        settings.idle_timeout_s,
        settings.total_timeout_s,
    )


def _rules(settings: Settings) -> RuleBook:
    usual = _timeouts(settings)
    special = {model: replace(usual, **changes) for model, changes in settings.timeouts.items()}
    return RuleBook(usual, special, settings.fallbacks)


def _redis(settings: Settings) -> Redis | None:
    if settings.redis_url is None:
        return None
    return redis_address.client(settings.redis_url.get_secret_value(), timeout_s=2.0)
