"""Counts and times every request, and writes one access line for it. Bodies, keys and query strings stay out.

The path is logged as it was sent, still encoded: decoded, it could forge lines."""

import logging
import time

from gateway.context import current
from gateway.metrics import Metrics
from gateway.middleware.asgi import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("gateway.access")

CLIENT_CLOSED_REQUEST = 499  # nginx's name for a client that left before the answer
DOORS = frozenset({"v1", "chains", "skills", "health", "metrics"})


class Telemetry:
    """Outside of every layer that can answer, so that refusals are counted too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), CLIENT_CLOSED_REQUEST
        door = scope["path"].lstrip("/").partition("/")[0]
        door = door if door in DOORS else "other"

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.first_byte_seconds.labels(door).observe(time.perf_counter() - started)
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, observed_send)
        finally:
            seconds, context = time.perf_counter() - started, current.get()
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(door, status, context.tenant).inc()
            self._metrics.request_seconds.labels(door).observe(seconds)
            line = "%s %s %d %.1f ms tenant=%s id=%s"
            path = scope["raw_path"].decode("latin-1")
            log.info(line, scope["method"], path, status, seconds * 1000, context.tenant, context.request_id)
