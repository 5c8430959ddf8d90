"""A connection to Redis that many share: commands out, replies in, in the same order.

What all requests of a worker ask in one turn of the event loop goes out in one write. redis-py, which everything else
here uses, takes a connection and some hundred microseconds per command.
Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from gateway.redis_introduction import ENDS, PASSES
from gateway.redis_script import Script

TIMEOUT_S = 0.05
# A connection whose answers are this late is given up.
STALLED_S = 2.0

Argument = bytes | str | int
# As bytes it is packed already.
Command = tuple[Argument, ...] | bytes


class RedisUnavailable(Exception):
    """Redis did not do it: there is no connection, no answer in time, or an error reply."""


class RedisRefused(RedisUnavailable):
    """It has answered with an error.

    Attributes:
        passes: it has surely not done it, and another time it may.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.passes = reason.partition(" ")[0] in PASSES


class Told:
    """Stands in a future's place for a reply that nobody waits for: no turn of the event loop is taken for it."""

    __slots__ = ("_over", "_told")

    def __init__(self, told: Callable[[RedisUnavailable | None], None]) -> None:
        self._told = told
        self._over = False

    def done(self) -> bool:
        return self._over

    def set_result(self, _reply: object) -> None:
        self._over = True
        self._told(None)

    def set_exception(self, error: RedisUnavailable) -> None:
        self._over = True
        self._told(error)


class Late:
    """Stands in a future's place for a reply that counts even when nobody waits for it any more: `late` is told it."""

    __slots__ = ("_future", "_late")

    def __init__(self, future: "asyncio.Future[Any]", late: Callable[[Any], None]) -> None:
        self._future = future
        self._late = late

    def done(self) -> bool:
        return False

    def set_result(self, reply: object) -> None:
        if self._future.done():
            self._late(reply)
        else:
            self._future.set_result(reply)

    def set_exception(self, error: RedisUnavailable) -> None:
        if not self._future.done():
            self._future.set_exception(error)


Waiter = asyncio.Future[Any] | Told | Late
# Who waits for a reply, since when, and where it is a script's: which, and its keys and arguments.
_Due = tuple[Waiter, float, Script | None, tuple[Argument, ...]]


class Channel(asyncio.Protocol):
    """The connection itself: commands out, replies in, in the same order.

    Attributes:
        late: an answer is overdue, and nobody should wait for more.
        lost: the reason, once the connection is gone.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._reader = hiredis.Reader()
        self._out: list[bytes] = []
        self._due: deque[_Due] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.late = False
        self.lost: asyncio.Future[str] = self._loop.create_future()

    def send(
        self, command: Command, script: Script | None = None, late: Callable[[Any], None] | None = None
    ) -> "asyncio.Future[Any]":
        """The reply, or RedisUnavailable.

        Args:
            script: what the command names by its digest.
            late: told the reply if it comes after RedisUnavailable.
        """
        future = self._loop.create_future()
        self.put(command, future if late is None else Late(future, late), script)
        return future

    def put(self, command: Command, waiter: Waiter, script: Script | None = None) -> None:
        """The same, for a waiter of one's own."""
        if self.lost.done():
            waiter.set_exception(RedisUnavailable(self.lost.result()))
            return
        # What may have to be sent again is kept, and nothing else: an answer for the cache may be long.
        kept = command[2:] if script is not None and not isinstance(command, bytes) else ()
        self._put(command, (waiter, self._loop.time(), script, kept))
        if self._timer is None:
            self._timer = self._loop.call_later(TIMEOUT_S, self._look)

    def _put(self, command: Command, due: _Due) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(command if isinstance(command, bytes) else hiredis.pack_command(command))  # type: ignore[arg-type]
        self._due.append(due)

    def close(self, reason: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        self._fail_due(reason)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        due, ends = self._due, None
        try:
            while due and (reply := self._reader.gets()) is not False:
                entry = due.popleft()
                waiter = entry[0]
                if isinstance(reply, hiredis.ReplyError):
                    ends = ends or ENDS.get(str(reply).partition(" ")[0])
                    if not waiter.done():
                        self._refused(str(reply), entry)
                elif not waiter.done():
                    waiter.set_result(reply)
        except hiredis.ProtocolError as error:
            self.close(f"it does not speak Redis' protocol: {error}")
        if not due and self._reader.has_data():
            self.close("it says what nobody asked for")
        if not due:
            self.late = False
        if ends:
            self.close(ends)

    def _refused(self, reason: str, entry: _Due) -> None:
        waiter, at, script, arguments = entry
        if script is None or not reason.startswith("NOSCRIPT"):
            waiter.set_exception(RedisRefused(reason))
            return
        self._put(("EVAL", script.text, *arguments), (waiter, at, None, ()))
        # Others that are due before it were sent later.
        self._loop.call_at(at + TIMEOUT_S, _fail, waiter, "no answer in time, since it did not know the script")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(str(exc or "closed by Redis"))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.lost.done():
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        """Fires at most once per TIMEOUT_S, however many commands there are."""
        self._timer = None
        if not self._due:
            return
        waited = self._loop.time() - self._due[0][1]
        if waited >= STALLED_S:
            self.close("it has stopped answering")
            return
        if waited >= TIMEOUT_S:
            self.late = True
            self._fail_due("no answer in time")
        self._timer = self._loop.call_later(TIMEOUT_S - waited if waited < TIMEOUT_S else TIMEOUT_S / 5, self._look)

    def _fail_due(self, reason: str) -> None:
        """Whoever waits is told; the places in the line stay, for the replies that may come."""
        for waiter, *_ in self._due:
            _fail(waiter, reason)


def _fail(waiter: Waiter, reason: str) -> None:
    if not waiter.done():
        waiter.set_exception(RedisUnavailable(reason))
