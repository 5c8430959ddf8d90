"""Gives every request an id: the client's `x-request-id` when it is a harmless one, a new one otherwise."""

import itertools
import re
import secrets
from collections.abc import Awaitable

from gateway.middleware.asgi import ASGIApp, Receive, Scope, Send, exchange_of

_HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """Names the request, and tells the client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = b""
        self._numbers = itertools.count()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        given = exchange.fields.get(b"x-request-id")
        request_id = given if given and _HARMLESS.fullmatch(given) else self._new()
        exchange.request_id = request_id
        exchange.response_headers.append((b"x-request-id", request_id))
        return self._app(scope, receive, send)

    def _new(self) -> bytes:
        if not self._prefix:  # random per worker, and workers fork after this layer was built
            self._prefix = secrets.token_hex(8).encode()
        return b"%b%016x" % (self._prefix, next(self._numbers))
