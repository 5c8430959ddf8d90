"""An engine's answer on its way to whoever asked: whole, or as a stream of events."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from gateway.completion.request import Call
from gateway.errors import UpstreamFailed
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.relay import Client, EventStream
from gateway.upstream.sse import payloads

# How long the end of a finished stream may take before its connection is given up.
_DRAIN_S = 0.05
_MAX_BODY_BYTES = 64 * 1024 * 1024


class Answer(ABC):
    """A successful answer; who receives one closes it.

    Attributes:
        stream: whether it comes as events.
        headers: what the response tells of it.
    """

    stream: bool
    headers: Sequence[tuple[bytes, bytes]] = ()

    @abstractmethod
    async def body(self) -> bytes:
        """A whole answer, as the engine wrote it."""

    @abstractmethod
    def frames(self) -> AsyncGenerator[bytes]:
        """The events as bytes, whole frames, without the final `[DONE]`; raises if the stream fails."""

    @abstractmethod
    async def relay(self, client: Client) -> None:
        """Writes the events to `client` as `frames` gives them, the moment they arrive; raises if the stream fails."""

    @abstractmethod
    async def aclose(self) -> None:
        """Ends the exchange. Idempotent."""

    async def json(self) -> dict[str, Any]:
        """A whole answer, parsed."""
        try:
            answer = orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            raise UpstreamFailed("The engine's answer is not valid JSON.") from error
        if not isinstance(answer, dict):
            raise UpstreamFailed("The engine's answer is not a JSON object.")
        return answer

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """The events parsed; raises if the stream fails."""
        async for frames in self.frames():
            for payload in payloads(frames):
                try:
                    yield orjson.loads(payload)
                except orjson.JSONDecodeError as error:
                    raise UpstreamFailed("The engine sent an event that is not valid JSON.") from error


class EngineAnswer(Answer):
    """An answer that an engine gives now; closing it stops the engine if it has not finished."""

    def __init__(self, exchange: UpstreamResponse, events: EventStream | None = None, first: bytes = b"") -> None:
        self.stream = events is not None
        self._exchange = exchange
        self._events = events
        self._first = first

    @classmethod
    async def open(cls, exchange: UpstreamResponse, call: Call) -> "EngineAnswer":
        """Waits for the first event of a stream, so that a failure before it is an error and not a broken 200."""
        content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
        if not content_type.startswith("text/event-stream"):
            raise UpstreamFailed(f"The engine answered a stream request with {content_type or 'no content type'}.")
        events, first = EventStream(exchange, call.choices), b""
        while b"data:" not in first:  # a comment, such as a ping, promises nothing
            first += (frames := await events.read())
            if not frames:
                break
        return cls(exchange, events, first)

    async def body(self) -> bytes:
        body = await self._exchange.body(_MAX_BODY_BYTES)
        if body.startswith((b'{"error"', b'{"object":"error"')):
            raise UpstreamFailed("The engine answered with an error under a status of success.")
        if not body.rstrip().endswith(b"}"):
            raise UpstreamFailed("The engine's answer is not a whole JSON object.")
        return body

    async def frames(self) -> AsyncGenerator[bytes]:
        frames = self._first
        while frames and self._events is not None:
            yield frames
            frames = await self._events.read()

    async def relay(self, client: Client) -> None:
        if self._first:
            client.write(self._first)
        if self._events is not None:
            await self._events.relay(client)

    async def aclose(self) -> None:
        try:
            if self._events is not None and self._events.ended and not self._exchange.complete:
                await self._exchange.drain(_DRAIN_S)
        finally:
            self._exchange.close()
