"""Moves an engine's event stream to its reader: bytes unchanged, the end proved.

`[DONE]` proves nothing (vLLM sends it after an error); a `finish_reason` does. So `[DONE]` is held back here and the
reader sends its own once the stream has ended without an error. Content is never decoded.
"""

import re

import orjson

from gateway.errors import StreamInterrupted
from gateway.upstream.exchange import Exchange
from gateway.upstream.sse import FrameSplitter, payloads

# Inside a JSON string these quotes would be escaped, so no content can pretend to be either.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_ERROR = re.compile(rb'^(?:data:\s*\{\s*"error"\s*:(?!\s*null)|event:\s*error|error:)', re.MULTILINE)
_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)


class EventStream:
    """The events of one exchange, as whole frames.

    Args:
        choices: how many answers the stream carries, each of which has to finish.

    Attributes:
        ended: the engine has said its last word.
    """

    def __init__(self, exchange: Exchange, choices: int) -> None:
        self.ended = False
        self._exchange = exchange
        self._splitter = FrameSplitter()
        self._unfinished = set(range(choices))
        self._error: StreamInterrupted | None = None

    async def read(self) -> bytes:
        """The frames that have arrived, at least one; `b""` once the stream has ended as it should.

        Raises:
            StreamInterrupted: the engine reported an error, or ended before every choice had a `finish_reason`.
            UpstreamFailed, DeadlineExceeded: the connection broke or stalled.
        """
        while not self.ended and (data := await self._exchange.read()):
            if frames := self._check(self._splitter.feed(data)):
                return frames
        self.ended = True
        if self._error is not None:
            raise self._error
        if self._unfinished:
            raise StreamInterrupted("The engine ended its stream before the answer was complete. Please try again.")
        return b""

    def _check(self, frames: bytes) -> bytes:
        if error := _ERROR.search(frames):
            self.ended, self._error = True, _reported(frames[error.start() :])
            return frames[: error.start()]
        if _FINISHED.search(frames):
            self._unfinished -= _finished_choices(frames)
        if done := _DONE.search(frames):
            self.ended = True
            return frames[: done.start()]
        return frames


def _finished_choices(frames: bytes) -> set[int]:
    """The indices of the choices that end in these frames."""
    finished = set()
    for payload in filter(_FINISHED.search, payloads(frames)):
        try:
            choices = orjson.loads(payload)["choices"]
            finished |= {choice.get("index", 0) for choice in choices if choice["finish_reason"]}
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise StreamInterrupted("The engine sent a last event that is not valid.") from error
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
