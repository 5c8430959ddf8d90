"""The application: FastAPI's routes, raw ASGI endpoints beside them, and one list of layers around both.

A raw endpoint gets its request straight from the layers. FastAPI's own way to a route, with its matching, exit stacks
and three layers of its own, costs more than all that the gateway does with a completion.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import MethodNotAllowed
from gateway.middleware.errors import ErrorResponses


class Gateway(FastAPI):
    """FastAPI with raw endpoints.

    Args:
        layers: around every route, the outermost first.
        raw: ASGI applications by path, each for POST.
    """

    def __init__(self, layers: Sequence[Middleware], raw: Mapping[str, ASGIApp], **options: Any) -> None:
        # Inside of Starlette's outermost layer, which would answer every error with a bare 500.
        super().__init__(middleware=[Middleware(ErrorResponses)], **options)
        self._raw = raw
        self._layered: ASGIApp = self._dispatch
        for layer, args, kwargs in reversed(layers):
            self._layered = layer(self._layered, *args, **kwargs)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        call = self._layered if scope["type"] == "http" else super().__call__
        return call(scope, receive, send)

    def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        endpoint = self._raw.get(scope["path"])
        if endpoint is None:
            return super().__call__(scope, receive, send)
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{scope['path']} does not take {scope['method']}.")
        return endpoint(scope, receive, send)
