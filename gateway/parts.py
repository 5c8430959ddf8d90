"""The parts of a gateway, put together as the settings say.

Nothing is opened here: what needs a connection or a task is among `runs`, which the application's lifespan starts.
"""

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from gateway import redis_address
from gateway.cache.exact import ExactCache
from gateway.cache.mail import Mail
from gateway.completion.admission import Admission
from gateway.completion.caching import Caching
from gateway.completion.call import CompletionPath
from gateway.completion.catalog import Catalog
from gateway.completion.dispatch import Dispatch
from gateway.completion.fallbacks import Fallbacks
from gateway.completion.flight_watch import FlightWatch
from gateway.completion.flights import Flights
from gateway.completion.metering import Metering
from gateway.completion.retries import RuleBook
from gateway.completion.semantic import Semantic
from gateway.completion.singleflight import SingleFlight
from gateway.keys.ring import KeyRing
from gateway.limits.requests import RequestLimits
from gateway.limits.reservations import Reservations
from gateway.limits.usage import Ledger
from gateway.metrics import Metrics
from gateway.redis_link import RedisLink
from gateway.routing.arrivals import Arrivals
from gateway.routing.directory import Directory
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.routing.shared_breakers import SharedBreakers
from gateway.routing.watch import Watch
from gateway.sessions.store import Sessions
from gateway.settings import Settings
from gateway.upstream.aiohttp_client import AiohttpClient
from gateway.upstream.client import UpstreamClient
from gateway.upstream.health import HealthCheck
from gateway.upstream.http1 import HttpClient
from gateway.upstream.timeouts import Timeouts

Run = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Parts:
    """
    Attributes:
        redis: for what is not in a request's way; None where there is no Redis.
        runs: what works beside the requests, each until it is cancelled. The link to Redis, where there is one, is the
            last, and goes last: others tell it something when they end.
    """

    metrics: Metrics
    redis: Redis | None
    client: UpstreamClient
    directory: Directory
    ring: KeyRing
    sessions: Sessions
    path: CompletionPath
    runs: Sequence[Run]


def build(settings: Settings) -> Parts:
    metrics = Metrics()
    redis, link = _redis(settings)
    client, directory = _client(settings), _directory(settings, redis, metrics)
    ring = _key_ring(settings, redis, metrics)
    rules = _rules(settings)
    fallbacks = Fallbacks(rules, directory)
    arrivals = Arrivals(directory, settings.replica_wait_s, metrics)
    queue = (settings.queue_max_requests, settings.queue_wait_s)
    admission = Admission(directory, settings.workers, *queue, metrics)
    router = Router(settings.routing_policy, settings.routing, metrics)
    breakers, watch = SharedBreakers(router, redis), Watch(router, directory, HealthCheck())
    dispatch = Dispatch(arrivals, admission, router, client, rules, fallbacks, metrics)

    cache = ExactCache(link, settings.cache_ttl_s, settings.cache_max_answer_bytes, metrics)
    mail = Mail(redis if cache.on else None, metrics)
    flights = Flights(cache, mail)
    semantic = Semantic.of(settings, link, cache, dispatch, directory.pool, metrics)
    caching = Caching(cache, mail, metrics, paced=settings.cache_replay == "paced", semantic=semantic)

    ledger, reservations = Ledger(redis, metrics), Reservations(link, settings.workers, metrics)
    metering = Metering(RequestLimits(link, settings.workers, metrics), reservations, ledger)
    catalog = Catalog(directory, settings.models, int(time.time()))
    path = CompletionPath(catalog, fallbacks, metering, caching, SingleFlight(cache, flights), dispatch)
    runs = [directory.run, admission.run, ring.run, ledger.run, reservations.run, breakers.run, watch.run]
    runs = [FlightWatch(flights, cache, mail).run, *runs, *([link.run] if link else [])]
    sessions = Sessions(link, settings.session_ttl_s, settings.session_max_messages)
    return Parts(metrics, redis, client, directory, ring, sessions, path, runs)


def _redis(settings: Settings) -> tuple[Redis | None, RedisLink | None]:
    if settings.redis_url is None:
        return None, None
    url = settings.redis_url.get_secret_value()
    return redis_address.client(url, timeout_s=2.0), RedisLink(url)


def _client(settings: Settings) -> UpstreamClient:
    timeouts = _timeouts(settings)
    return HttpClient(timeouts) if settings.http_client == "native" else AiohttpClient(timeouts)


def _directory(settings: Settings, redis: Redis | None, metrics: Metrics) -> Directory:
    static = [Replica.from_upstream(upstream, number) for number, upstream in enumerate(settings.upstreams)]
    engine_key = settings.engine_key.get_secret_value() if settings.engine_key else None
    return Directory(static, redis, engine_key, metrics)


def _key_ring(settings: Settings, redis: Redis | None, metrics: Metrics) -> KeyRing:
    if settings.key_secret is None:
        return KeyRing(settings.keys, None, b"", metrics)
    return KeyRing(settings.keys, redis, settings.key_secret.get_secret_value().encode(), metrics)


def _rules(settings: Settings) -> RuleBook:
    usual = _timeouts(settings)
    special = {model: replace(usual, **changes) for model, changes in settings.timeouts.items()}
    return RuleBook(usual, special, settings.fallbacks)


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        settings.connect_timeout_s,
        settings.first_byte_timeout_s,
        settings.first_token_timeout_s,
        settings.idle_timeout_s,
        settings.total_timeout_s,
    )
