"""Turns every error into its response, once, for all doors."""

import logging

from gateway.context import current
from gateway.errors import GatewayError
from gateway.middleware.asgi import ASGIApp, Message, Receive, Scope, Send, respond

log = logging.getLogger(__name__)


class ErrorResponses:
    """Answers a GatewayError with its own status and body, and a defect with a 500 that tells nothing but the id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except GatewayError as error:
            if started:
                raise  # too late for a status: the server closes the connection, and the client sees the cut
            headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await respond(send, error.status, error.body(), headers)
        except Exception:
            log.exception("request %s failed", current.get().request_id)
            if started:
                raise
            defect = GatewayError(f"Internal error. Please report it with the request id {current.get().request_id}.")
            await respond(send, defect.status, defect.body())
