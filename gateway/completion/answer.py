"""An engine's answer on its way to whoever asked: whole, or as a stream of events."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from gateway.completion.request import Call
from gateway.errors import GatewayError, UpstreamFailed
from gateway.limits.usage import Ended
from gateway.routing.attempt import Attempt
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.relay import Client, EventStream
from gateway.upstream.sse import payloads
from gateway.upstream.usage import Usage

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
    """An answer that an engine gives now; closing it stops the engine if it has not finished.

    Args:
        ended: told what was used, once, when the answer is closed; None where nobody wants to know.
    """

    def __init__(
        self,
        exchange: UpstreamResponse,
        attempt: Attempt,
        call: Call,
        ended: Ended | None,
        events: EventStream | None = None,
        first: bytes = b"",
    ) -> None:
        self.stream = events is not None
        self._exchange = exchange
        self._attempt = attempt
        self._call = call
        self._ended = ended
        self._events = events
        self._first = first
        self._body = b""

    @classmethod
    async def open(
        cls, exchange: UpstreamResponse, attempt: Attempt, call: Call, ended: Ended | None, *, usage_asked: bool
    ) -> "EngineAnswer":
        """Waits for the first event of a stream, so that a failure before it is an error and not a broken 200."""
        content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
        if not content_type.startswith("text/event-stream"):
            raise UpstreamFailed(f"The engine answered a stream request with {content_type or 'no content type'}.")
        hide_usage = usage_asked and not call.wants_usage
        events, first = EventStream(exchange, call.choices, hide_usage=hide_usage), b""
        while b"data:" not in first:  # a comment, such as a ping, promises nothing
            first += (frames := await events.read())
            if not frames:
                break
        attempt.first_token()
        return cls(exchange, attempt, call, ended, events, first)

    async def body(self) -> bytes:
        try:
            return await self._whole()
        except GatewayError as error:
            self._attempt.failed(error)
            raise

    async def _whole(self) -> bytes:
        body = await self._exchange.body(_MAX_BODY_BYTES)
        if body.startswith((b'{"error"', b'{"object":"error"')):
            raise UpstreamFailed("The engine answered with an error under a status of success.")
        if not body.rstrip().endswith(b"}"):
            raise UpstreamFailed("The engine's answer is not a whole JSON object.")
        self._body = body
        return body

    async def frames(self) -> AsyncGenerator[bytes]:
        frames = self._first
        while frames and self._events is not None:
            yield frames
            try:
                frames = await self._events.read()
            except GatewayError as error:
                self._attempt.failed(error)
                raise

    async def relay(self, client: Client) -> None:
        if self._first:
            client.write(self._first)
        if self._events is not None:
            try:
                await self._events.relay(client)
            except GatewayError as error:
                self._attempt.failed(error)
                raise

    async def aclose(self) -> None:
        try:
            if self._events is not None and self._events.ended and not self._exchange.complete:
                await self._exchange.drain(_DRAIN_S)
        finally:
            if self._exchange.complete or (self._events is not None and self._events.ended):
                self._attempt.ended(self._used().completion)
            else:
                self._attempt.abandoned()
            self._exchange.close()
            if self._ended is not None:
                ended, self._ended = self._ended, None
                ended(self._used())

    def _used(self) -> Usage:
        """As the engine told it; of an answer that was left, about what had come."""
        told = Usage.find(self._body) if self._events is None else self._events.usage
        if told is not None:
            return told
        return Usage(self._call.prompt_tokens, self._events.events if self._events is not None else 0)
