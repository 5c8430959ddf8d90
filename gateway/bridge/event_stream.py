r"""Server-sent events as LangServe's clients read them.

`\r\n` line ends, one event per item, a comment every 15 s so that no proxy takes a thinking model for a dead one, and
always a last event: `end`, or `error` with `{"status_code", "message"}`, since a client takes a stream without either
for a complete one.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.bridge.failures import behind, published
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

# Clients built on httpx split lines at these, too.
_LINE_BREAKS = {ord(char): f"\\u{ord(char):04x}" for char in "\u0085\u2028\u2029"}

END = b"event: end\r\n\r\n"


def event(name: str, json: bytes) -> bytes:
    """One event whose data is one line of JSON."""
    text = json.decode()
    if not text.isascii():
        text = text.translate(_LINE_BREAKS)
    return f"event: {name}\r\ndata: {text}\r\n\r\n".encode()


class EventStreamResponse(Response):
    """Sends a run's events and its end. Whoever cancels the request's task stops the run."""

    media_type = "text/event-stream"
    ping_seconds = 15.0

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    @classmethod
    async def begin(cls, events: AsyncGenerator[bytes]) -> "EventStreamResponse":
        """Waits for the first event, so that a run that fails before it answers with its own status.

        Raises:
            GatewayError: that failure.
        """
        with published():
            return cls(await anext(events, b""), events)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest), aclosing(self._events()) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            ping = asyncio.create_task(self._ping(send))
            try:
                async for data in events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            finally:
                ping.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncGenerator[bytes]:
        try:
            if self._first:
                yield self._first
            async for data in self._rest:
                yield data
        except Exception as error:
            failure = behind(error)
            if failure is None:
                log.exception("A chain failed after its stream had begun.")
                failure = GatewayError("Internal Server Error")
            yield event("error", orjson.dumps({"status_code": failure.status, "message": failure.message}))
        else:
            yield END

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self.ping_seconds)
            await send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
