"""Gives every request an id: the client's `x-request-id` when it is a harmless one, a new one otherwise."""

import re
import uuid

from gateway.context import RequestContext, current
from gateway.middleware.asgi import ASGIApp, Message, Receive, Scope, Send, header

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """Starts the request's context and echoes its id in the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        request_id = given if given and _HARMLESS.fullmatch(given) else uuid.uuid4().hex
        current.set(RequestContext(request_id))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id)
