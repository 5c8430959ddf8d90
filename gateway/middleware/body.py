"""Bounds a request's body in size and in the time it takes to arrive."""

import asyncio

from gateway.errors import BodyTooLarge, RequestTimeout
from gateway.middleware.asgi import ASGIApp, Message, Receive, Scope, Send, header


class BodyLimit:
    """Refuses by `content-length` before reading, and by count while reading.

    Args:
        max_bytes: of the whole body.
        seconds: from the first read to the last byte.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        size, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def bounded_receive() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise RequestTimeout(f"The request body did not arrive within {self._seconds:g} seconds.") from error
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                raise self._too_large()
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, bounded_receive, send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than {self._max_bytes} bytes.")
