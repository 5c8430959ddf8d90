"""An engine's answer on its way to whoever asked: whole, or as a stream of events."""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from gateway.completion.frames import from_engine, parsed
from gateway.completion.request import Call
from gateway.errors import DeadlineExceeded, GatewayError, UpstreamFailed
from gateway.limits.usage import Ended
from gateway.routing.attempt import Attempt
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.relay import GIVEN_UP, Client, EventStream
from gateway.upstream.timeouts import Timeouts
from gateway.upstream.usage import Usage

# How long the end of a finished stream may take before its connection is given up.
_DRAIN_S = 0.05
MAX_BODY_BYTES = 64 * 1024 * 1024
_NO_END = re.compile(rb'"finish_reason"\s*:\s*"(?:%b)"' % "|".join(sorted(GIVEN_UP)).encode())


class Answer(ABC):
    """A successful answer; who receives one closes it.

    Attributes:
        stream: whether it comes as events.
        headers: what the response tells of it.
        waited_s: how long engines took until it began, and the queue before them, in seconds.
        foreign: it is another model's than the one that was asked.
        updated: the model has got another revision since it was asked.
    """

    __slots__ = ("foreign", "headers", "stream", "updated", "waited_s")

    def __init__(self, *, stream: bool, headers: Sequence[tuple[bytes, bytes]] = (), waited_s: float = 0.0) -> None:
        self.stream = stream
        self.headers = headers
        self.waited_s = waited_s
        self.foreign = self.updated = False

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

    def events(self) -> AsyncGenerator[dict[str, Any]]:
        """The events parsed; raises if the stream fails."""
        return parsed(self.frames())


class EngineAnswer(Answer):
    """An answer that an engine gives now; closing it stops the engine if it has not finished.

    Args:
        attempt: told how it went.
        until: the request's own deadline, by `time.monotonic`: no fault of the engine's.

    Attributes:
        ended: told what was used, once, when the answer is closed; None where nobody wants to know.
        source: of a stream.
    """

    __slots__ = ("_attempt", "_call", "_exchange", "_first", "_until", "ended", "source")

    def __init__(
        self,
        exchange: UpstreamResponse,
        call: Call,
        attempt: Attempt,
        until: float,
        events: EventStream | None = None,
        first: bytes = b"",
    ) -> None:
        super().__init__(stream=events is not None)
        self.ended: Ended | None = None
        self.source = events
        self._exchange = exchange
        self._call = call
        self._attempt = attempt
        self._until = until
        self._first = first

    @classmethod
    async def open(
        cls,
        exchange: UpstreamResponse,
        call: Call,
        attempt: Attempt,
        until: float,
        *,
        usage_asked: bool,
        keep: bool,
        timeouts: Timeouts,
    ) -> "EngineAnswer":
        """Waits for the first event of a stream, so that a failure before it is an error and not a broken 200.

        Args:
            keep: see EventStream.
            timeouts: for the first event and between two of them.
        """
        content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
        if not content_type.startswith("text/event-stream"):
            raise UpstreamFailed(f"The engine answered a stream request with {content_type or 'no content type'}.")
        hide_usage = usage_asked and not call.wants_usage
        events = EventStream(exchange, call.choices, idle_s=timeouts.idle, hide_usage=hide_usage, keep=keep)
        first = await events.read()
        if b"data:" not in first:  # a comment, such as a ping, promises nothing
            first += await _first_event(events, timeouts.first_token)
        attempt.first_token()
        return cls(exchange, call, attempt, until, events, first)

    async def body(self) -> bytes:
        return self._first

    def frames(self) -> AsyncGenerator[bytes]:
        return from_engine(self._first, self.source, self._failed)

    async def relay(self, client: Client) -> None:
        if self._first:
            client.write(self._first)
        if self.source is not None:
            try:
                await self.source.relay(client)
            except GatewayError as error:
                self._failed(error)
                raise

    async def aclose(self) -> None:
        try:
            if self.source is not None and self.source.ended and not self._exchange.complete:
                await self._exchange.drain(_DRAIN_S)
        finally:
            self._exchange.close()
            self._tell()

    def used(self) -> Usage:
        """As the engine told it; of an answer that was left, about what had come."""
        told = Usage.find(self._first) if self.source is None else self.source.usage
        return told or Usage(self._call.prompt_tokens, self.source.events if self.source is not None else 0)

    def _tell(self) -> None:
        ended, self.ended = self.ended, None
        used = self.used() if ended is not None or self.source is not None or self._attempt.measures() else None
        if self.source is None or self.source.finished:
            self._attempt.ended(None if used is None else used.completion)
        else:
            self._attempt.abandoned()
        if ended is not None and used is not None:
            ended(used)

    def _failed(self, error: GatewayError) -> None:
        if isinstance(error, DeadlineExceeded) and time.monotonic() >= self._until:
            self._attempt.abandoned()
        else:
            self._attempt.failed(error)


def whole(body: bytes, call: Call) -> bytes:
    """The body of a whole answer; a failure is an error here that another engine may make good.

    `find`, since CPython's `in` makes an exception of bytes that it looks for, and drops it.
    """
    if body.startswith((b'{"error"', b'{"object":"error"')):
        raise UpstreamFailed("The engine answered with an error under a status of success.")
    if not body.rstrip().endswith(b"}"):
        raise UpstreamFailed("The engine's answer is not a whole JSON object.")
    if call.generates and (body.find(b'"choices"') < 0 or _given_up(body)):
        raise UpstreamFailed("The engine's answer has nothing in it, or was given up.")
    return body


def _given_up(body: bytes) -> bool:
    """Whether a choice ended in what is no answer's end; inside a JSON string the quotes would be escaped."""
    return (body.find(b'"abort"') >= 0 or body.find(b'"error"') >= 0) and _NO_END.search(body) is not None


async def _first_event(events: EventStream, within_s: float) -> bytes:
    frames = b""
    try:
        async with asyncio.timeout(within_s):
            while b"data:" not in frames:
                frames += (more := await events.read())
                if not more:
                    break
    except TimeoutError:
        raise DeadlineExceeded("The engine did not begin its answer in time.") from None
    return frames
