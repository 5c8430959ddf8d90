"""Moves an engine's event stream to its reader: bytes unchanged, the end proved.

`[DONE]` proves nothing (vLLM sends it after an error); a `finish_reason` does. So `[DONE]` is held back here and the
reader sends its own once the stream has ended without an error. Content is never decoded: an event is taken for JSON
that begins and ends as an object does, and only another is looked into.
"""

import asyncio
import re
from typing import Protocol

import orjson

from gateway.errors import DeadlineExceeded, GatewayError, StreamInterrupted, UpstreamFailed
from gateway.upstream.client import UpstreamResponse
from gateway.upstream.sse import FrameSplitter, payloads
from gateway.upstream.timeouts import NEVER
from gateway.upstream.usage import Usage

# Inside a JSON string these quotes would be escaped, so no content can pretend to be either.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_ERROR = re.compile(rb'^(?:data:\s*\{\s*"error"\s*:(?!\s*null)|event:\s*error|error:)', re.MULTILINE)
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_E = ord("e")
# What engines say of an answer that they have given up: vLLM where it is told to, OpenRouter where its provider fails.
GIVEN_UP = frozenset({"abort", "error"})
# Of a stream that may have to be gone on with: some 5,000 tokens, in the events of vLLM.
_MAX_KEPT_BYTES = 1024 * 1024
_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)


class Client(Protocol):
    """Who receives a relayed stream.

    Attributes:
        full: as of a Sink.
    """

    @property
    def full(self) -> "asyncio.Future[None] | None": ...
    def write(self, data: bytes) -> bool:
        """Returns whether it keeps up, so that `full` is None."""


class EventStream:
    """The events of one exchange, as whole frames: read one after the other, or relayed as they arrive.

    Args:
        choices: how many answers the stream carries, each of which has to finish.
        idle_s: how long there may be no event once there was one, whatever else comes.
        hide_usage: the engine was asked what was used, and the reader did not ask.
        keep: what was given is kept, up to _MAX_KEPT_BYTES.

    Attributes:
        ended: the engine has said its last word.
        kept: what was given so far; None where it was not to be kept, or is too long.
        usage: what was used, once the engine has told it.
        events: how many have come: about a token each.
    """

    def __init__(
        self,
        exchange: UpstreamResponse,
        choices: int,
        *,
        idle_s: float = NEVER,
        hide_usage: bool = False,
        keep: bool = False,
    ) -> None:
        self.ended = False
        self.usage: Usage | None = None
        self.events = 0
        self.kept: list[bytes] | None = [] if keep else None
        self._room = _MAX_KEPT_BYTES
        self._idle_s = idle_s
        self._quiet_since, self._quiet_after = 0.0, -1
        self._hide_usage = hide_usage
        self._exchange = exchange
        self._splitter = FrameSplitter()
        self._choices = self._unfinished = choices
        self._finished: set[int] = set()
        self._error: GatewayError | None = None

    async def read(self) -> bytes:
        """The frames that have arrived, at least one; `b""` once the stream has ended as it should.

        Raises:
            StreamInterrupted: the engine reported an error, or ended before every choice had a `finish_reason`.
            UpstreamFailed, DeadlineExceeded: the connection broke or stalled.
        """
        try:
            while not self.ended and (data := await self._exchange.read()):
                if frames := self.check(data):
                    return frames
        except (UpstreamFailed, DeadlineExceeded):
            if self._unfinished:  # else nothing is missing but the end itself
                raise
        self._conclude()
        return b""

    async def relay(self, client: Client) -> None:
        """Writes the frames to `client` until the stream has ended as it should; raises as `read` does."""
        try:
            await self._exchange.relay(_Relay(self, client))
        except (UpstreamFailed, DeadlineExceeded):
            if self._unfinished:  # else nothing is missing but the end itself
                raise
        self._conclude()

    def check(self, data: bytes) -> bytes:
        """The frames that `data` completes, up to the end of the stream."""
        self.events += 1
        # One event of one line, neither an error nor the end: nearly all of an engine's are.
        plain = data.endswith(b"}\n\n") and data.startswith(b'data: {"') and data[8] != _E
        if plain and data.find(b"\n") == len(data) - 2 and not self._splitter.rest:
            frames = data
        else:
            frames = self._looked_into(self._splitter.feed(data))
        if finished := _FINISHED.search(frames):  # and when many came together, those before it are not read
            before = frames.rfind(b"\n\n", 0, finished.start())
            self._finished |= _finished_choices(frames[before + 2 :] if before >= 0 else frames, self._choices)
            self._unfinished = self._choices - len(self._finished)
        # What was used is told in the last events, and costs the others nothing.
        if not self._unfinished and b'"usage"' in frames:
            frames = self._last(frames)
        if self.kept is not None:
            self._room -= len(frames)
            if self._room < 0:
                self.kept = None
            else:
                self.kept.append(frames)
        return frames

    def _looked_into(self, frames: bytes) -> bytes:
        """The frames up to the end, an error, or one that is not JSON."""
        if b"error" in frames and (error := _ERROR.search(frames)):
            self.ended, self._error = True, _reported(frames[error.start() :])
            frames = frames[: error.start()]
        elif (at := frames.find(b"[DONE]")) >= 0 and (done := _DONE.search(frames, frames.rfind(b"\n", 0, at) + 1)):
            self.ended, frames = True, frames[: done.start()]
        elif b"data:" not in frames:
            self._note_quiet()
        events = frames.count(b"}\n\n")
        if events > 1:
            self.events += events - 1  # that came with the one that is counted already
        return frames if frames.count(b"\n\n") == events else self._sound(frames)

    def _note_quiet(self) -> None:
        """Something has come that is no event: a ping, or a part of one. An engine that only pings has stalled."""
        self.events -= 1
        now = asyncio.get_running_loop().time()
        if self._quiet_after != self.events:
            self._quiet_after, self._quiet_since = self.events, now
        elif self.events and now - self._quiet_since > self._idle_s:
            self.ended, self._error = True, DeadlineExceeded("The engine did not go on with its answer in time.")

    def _sound(self, frames: bytes) -> bytes:
        end = 0
        for frame in frames.split(b"\n\n")[:-1]:
            try:
                for payload in payloads(frame):
                    orjson.loads(payload)
            except orjson.JSONDecodeError:
                self.ended, self._error = True, StreamInterrupted("The engine sent an event that is not valid JSON.")
                return frames[:end]
            end += len(frame) + 2
        return frames

    def _last(self, frames: bytes) -> bytes:
        """The same frames, but for the event with the usage that nobody asked for."""
        self.usage = Usage.find(frames) or self.usage
        if not self._hide_usage:
            return frames
        kept = [frame for frame in frames.split(b"\n\n") if not (b'"usage"' in frame and _NO_CHOICES.search(frame))]
        return b"\n\n".join(kept)

    @property
    def finished(self) -> bool:
        """Every choice has said why it ended."""
        return not self._unfinished

    def _conclude(self) -> None:
        self.ended = True
        if self._error is not None:
            raise self._error
        if self._unfinished:
            raise StreamInterrupted("The engine ended its stream before the answer was complete. Please try again.")


class _Relay:
    """The sink between an exchange and a client."""

    def __init__(self, stream: EventStream, client: Client) -> None:
        self._stream = stream
        self._client = client
        self._check, self._write = stream.check, client.write

    @property
    def done(self) -> bool:
        return self._stream.ended

    @property
    def full(self) -> "asyncio.Future[None] | None":
        return self._client.full

    def write(self, data: bytes) -> bool:
        frames = self._check(data)
        keeps_up = not frames or self._write(frames)
        return keeps_up and not self._stream.ended


def _finished_choices(frames: bytes, choices: int) -> set[int]:
    """The indices of the choices that end in these frames; raises StreamInterrupted where that is no answer's end."""
    finished = set()
    for payload in filter(_FINISHED.search, payloads(frames)):
        try:
            ends = {choice.get("index", 0): choice["finish_reason"] for choice in orjson.loads(payload)["choices"]}
            finished |= {index for index, reason in ends.items() if reason and 0 <= index < choices}
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise StreamInterrupted("The engine sent a last event that is not valid.") from error
        if not GIVEN_UP.isdisjoint(ends.values()):
            raise StreamInterrupted("The engine has given its answer up. Please try again.")
    return finished


def _reported(frames: bytes) -> StreamInterrupted:
    """The error an engine put into its stream, in our form."""
    for payload in payloads(frames):
        try:
            error = orjson.loads(payload)["error"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
        message = error.get("message") if isinstance(error, dict) else error
        return StreamInterrupted(f"The engine broke off: {message}")
    return StreamInterrupted("The engine broke off with an error.")
