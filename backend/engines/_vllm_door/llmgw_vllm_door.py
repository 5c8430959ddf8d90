"""Runs inside vLLM's API servers, which import it by name: no request but the health check passes without the key.

vLLM checks its own key on `/v1` only; its other routes generate text too, and some switch the engine off.
"""

import hmac
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

Messages = Callable[..., Awaitable[Any]]


class RequireKey:
    """ASGI middleware; the key comes from LLMGW_ENGINE_KEY."""

    def __init__(self, app: Messages) -> None:
        self._app = app
        self._expected = b"Bearer " + os.environ["LLMGW_ENGINE_KEY"].encode()

    async def __call__(self, scope: dict[str, Any], receive: Messages, send: Messages) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == "/health" or self._allows(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            error = {"message": "The engine key is missing or wrong.", "type": "authentication_error", "code": None}
            body = json.dumps({"error": error}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _allows(self, scope: dict[str, Any]) -> bool:
        presented = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(presented) == 1 and hmac.compare_digest(presented[0], self._expected)
