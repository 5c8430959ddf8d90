"""Turns every error into its response, once, for all doors."""

import logging

from gateway.context import current
from gateway.errors import GatewayError
from gateway.middleware.asgi import ASGIApp, Receive, Scope, Send, exchange_of

log = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")


class ErrorResponses:
    """Answers a GatewayError with its own status and body, and a defect with a 500 that tells nothing but the id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except GatewayError as error:
            exchange = exchange_of(scope)
            if exchange.status:
                raise  # too late for a status: the server closes the connection, and the client sees the cut
            headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await exchange.respond(error.status, [_JSON, *headers], error.body())
        except Exception:
            log.exception("request %s failed", current.get().request_id)
            exchange = exchange_of(scope)
            if exchange.status:
                raise
            defect = GatewayError(f"Internal error. Please report it with the request id {current.get().request_id}.")
            await exchange.respond(defect.status, [_JSON], defect.body())
