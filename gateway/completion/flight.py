"""One generation on its way to everybody who asked for the same.

It takes an answer's frames as an answer is relayed to a client, and keeps them for whoever reads them: from the
beginning, each at their own pace. At most `max_bytes` are kept; who is further behind than that is cut off, and who
comes later than that cannot join.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Protocol

from gateway.cache.claim import Claim
from gateway.cache.entry import Entry
from gateway.errors import GatewayError, StreamInterrupted
from gateway.upstream.relay import Client

# How an answer ends that is an answer; an engine that is stopped ends one with `abort`.
_END = b'"finish_reason"'
_OTHER_END = re.compile(rb'\s*:\s*"(?!(?:stop|length|tool_calls|function_call|content_filter)")')


class FlightLost(Exception):
    """Nobody makes this answer any more, and nobody knows how it would have ended."""


class Watcher(Protocol):
    """Another worker that follows.

    Attributes:
        sent: the parts before this number are on their way to it.
        heard_at: when it last said so, by the monotonic clock.
    """

    sent: int
    heard_at: float

    def tell(self) -> None:
        """There is something new."""


class Flight:
    """
    Args:
        key: of the answer in the cache.
        claim: what stands for it in Redis; None where no other worker can know of it.
        stream, usage: as of a Claim.

    Attributes:
        task: what makes the answer: the request's that it was begun for, or one of its own; None where another worker
            does.
        headers, waited_s: what the answer tells of itself, for the one it was begun for.
        members: how many requests of this worker want the answer.
        watchers: other workers that do.
        next: the number of the part that comes next.
        batch: until it begins, it may wait behind interactive requests.
        closed: nobody joins it any more.
        foreign: another model makes it, which those who joined may not use, and are not told of: they ask again.
        ended: nothing comes after what is there.
        error: why, where it is not the answer's end.
        apart: what feeds the client of the one who makes it, once that does not keep up with the others.
    """

    def __init__(self, key: str, claim: Claim | None, max_bytes: int, *, stream: bool, usage: bool) -> None:
        self.key = key
        self.claim = claim
        self.stream = stream
        self.usage = usage
        self.max_bytes = max_bytes
        self.task: asyncio.Task[None] | None = None
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self.waited_s = 0.0
        self.members = 0
        self.watchers: dict[str, Watcher] = {}
        self.next = 0
        self.batch = False
        self.closed = False
        self.foreign = False
        self.ended = False
        self.error: GatewayError | FlightLost | None = None
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._size = 0
        self._parts: list[tuple[int, bytes]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self.apart: asyncio.Task[None] | None = None
        self._direct: Client | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def joinable(self) -> bool:
        """Whether others may still have it, and the beginning is there."""
        return not self.ended and not self.closed and self.next == len(self._parts)

    @property
    def last(self) -> bytes:
        """The part that came last."""
        return self._parts[-1][1] if self._parts else b""

    @property
    def shared(self) -> bool:
        """Whether it goes on without the one who began it."""
        return self.members > 1 or bool(self.watchers)

    @property
    def wanted(self) -> bool:
        return self.members > 0 or bool(self.watchers)

    def join(self) -> None:
        self.members += 1
        self._joined()

    def watch(self, worker: str, watcher: Watcher) -> None:
        self.watchers[worker] = watcher
        self._joined()

    def entry(self) -> Entry | None:
        """The whole of it for the cache, once it has ended; None if it is too long, or no answer."""
        parts, whole = (self._parts, b"") if self.stream else ([], self.last)
        if self.next > len(self._parts) or self._size > self.max_bytes or not self._parts:
            return None
        if _ends_otherwise(self.since(0)):
            return None
        return Entry(int(time.time()), self.usage, parts, whole)

    # Readers

    async def begun(self) -> None:
        """Returns once there is something; raises what the flight failed with before that."""
        while not self.next and not self.ended:
            await self._news()
        if not self.next and self.error is not None:
            raise self.error

    async def read(self, at: int) -> tuple[int, bytes]:
        """What there is from part `at` on, at least something, and the number of the part behind it; `b""` at the end.

        Raises:
            GatewayError: the generation has failed, or this reader is too far behind.
            FlightLost: see there.
        """
        while at >= self.next and not self.ended:
            await self._news()
        data = self.since(at)
        if not data and self.error is not None:
            raise self.error
        return self.next, data

    def since(self, at: int) -> bytes:
        """What there is from part `at` on; raises StreamInterrupted when that has been dropped."""
        first = self.next - len(self._parts)
        if at < first:
            raise StreamInterrupted("This answer was read too slowly. Please try again.")
        return b"".join([part for _, part in self._parts[at - first :]])

    # The generation's side: a client of its answer

    def lead(self, client: Client) -> None:
        """What comes is written to `client` the moment it comes, as long as that does not hold up others."""
        self._direct = client

    @property
    def full(self) -> "asyncio.Future[None] | None":
        full = self._direct.full if self._direct is not None else None
        if full is None:
            return None
        if self._room is None or self._room.done():
            self._room = room = self._loop.create_future()
            full.add_done_callback(lambda _: _resolve(room))
        return self._room

    def write(self, data: bytes) -> bool:
        now = time.monotonic()
        self._began = self._began or now
        self._parts.append((int((now - self._began) * 1000), data))
        self.next += 1
        self._size += len(data)
        while self._size > self.max_bytes and len(self._parts) > 1:
            self._size -= len(self._parts.pop(0)[1])
        if self._waiting or self.watchers:
            self._tell()
        if self._direct is None or self._direct.write(data):
            return True
        if not self.shared:
            return False
        self._set_apart()
        return True

    def end(self, error: GatewayError | FlightLost | None = None) -> None:
        """Idempotent: the first word counts."""
        if not self.ended:
            self.ended, self.error = True, error
            if self._waiting or self.watchers:
                self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _resolve(future)
        for watcher in self.watchers.values():
            watcher.tell()

    def _news(self) -> "asyncio.Future[None]":
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _joined(self) -> None:
        if self._direct is not None and self._direct.full is not None:
            self._set_apart()

    def _set_apart(self) -> None:
        client, self._direct = self._direct, None
        if client is not None:
            self.apart = self._loop.create_task(self._feed(client, self.next))
        if self._room is not None:
            _resolve(self._room)

    async def _feed(self, client: Client, at: int) -> None:
        """Writes what there is from part `at` on, at the client's own pace; raises as `read`."""
        while True:
            if client.full is not None:
                await asyncio.shield(client.full)
            at, data = await self.read(at)
            if not data:
                return
            client.write(data)


def _ends_otherwise(answer: bytes) -> bool:
    at = answer.find(_END)
    while at >= 0:
        at += len(_END)
        if _OTHER_END.match(answer, at):
            return True
        at = answer.find(_END, at)
    return False


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
