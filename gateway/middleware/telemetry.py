"""Counts and times every request, and notes it for the access log."""

import time
from collections.abc import Awaitable

from gateway.context import current
from gateway.middleware.asgi import ASGIApp, Receive, Scope, Send, exchange_of
from gateway.request_log import RequestLog, RequestRecord
from gateway.server.exchange import Exchange

CLIENT_CLOSED_REQUEST = 499  # nginx's name for a client that left before the answer


class Telemetry:
    """Outside of every layer that can answer, so that refusals are counted too."""

    def __init__(self, app: ASGIApp, log: RequestLog) -> None:
        self._app = app
        self._log = log

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        self._log.begin()
        exchange_of(scope).on_end = self._note
        return self._app(scope, receive, send)

    def _note(self, exchange: Exchange, scope: Scope) -> None:
        """Called in the request's own context."""
        self._log.end(
            RequestRecord(
                scope["method"],
                scope["raw_path"],
                CLIENT_CLOSED_REQUEST if exchange.client_left else exchange.status or 500,
                exchange.last_byte_s or time.perf_counter() - exchange.began_at,
                exchange.first_byte_s,
                exchange.client_left,
                current.get(),
                time.time(),
            )
        )
