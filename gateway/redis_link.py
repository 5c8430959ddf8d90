"""One multiplexed connection to Redis for the completion path.

What all requests of a worker ask in one turn of the event loop goes out in one write, and the replies come back in
order. redis-py, which everything else here uses, takes a connection and some hundred microseconds per command.

Redis away or slow must cost a request next to nothing: a call fails at once while there is no connection, and after
TIMEOUT_S when an answer is due. After that calls fail at once until Redis has caught up.
Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.exceptions import RedisError

from gateway.redis_address import parse
from gateway.redis_dial import dial
from gateway.redis_follower import stopping
from gateway.redis_introduction import ENDS, introduction, objection

log = logging.getLogger(__name__)

TIMEOUT_S = 0.05
# A connection whose answers are this late is given up.
STALLED_S = 2.0
CONNECT_S = 1.0
RECONNECT_S = 0.5

Argument = bytes | str | int


class RedisUnavailable(Exception):
    """Redis did not do it: there is no connection, no answer in time, or an error reply."""


class Script:
    """A Lua script, called by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Keeps one connection, and sends everybody's commands over it.

    Args:
        url: see `redis_address.py`; of its TLS options `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` count.
    """

    def __init__(self, url: str) -> None:
        self._address = parse(url)
        self._finder = self._address.finder()
        self._channel: _Channel | None = None

    async def run(self) -> None:
        """Stays connected until cancelled."""
        connected = True  # the first failure is news
        while not stopping():
            try:
                async with asyncio.timeout(CONNECT_S):
                    channel = await self._connect()
            except (OSError, TimeoutError, ValueError, RedisError, RedisUnavailable) as error:
                if connected:
                    log.warning("no connection to Redis (%s); trying again", str(error) or type(error).__name__)
                connected = False
                await asyncio.sleep(RECONNECT_S)
                continue
            except Exception:  # a link that ends in silence would count limits per worker for good
                if connected:
                    log.exception("no connection to Redis; trying again")
                connected = False
                await asyncio.sleep(RECONNECT_S)
                continue
            if stopping():  # and a library has swallowed it while it looked for the master
                channel.close("the gateway stops")
                return
            log.info("connected to Redis")
            connected, self._channel = True, channel
            try:
                reason = await asyncio.shield(channel.lost)
            finally:
                self._channel = None
                channel.close("the gateway stops")
            log.warning("lost the connection to Redis (%s)", reason)
            await asyncio.sleep(RECONNECT_S)

    async def check(self) -> None:
        """Connects once. Raises RedisUnavailable, which says what is in the way."""
        try:
            async with asyncio.timeout(CONNECT_S):
                channel = await self._connect()
        except (OSError, TimeoutError, ValueError, RedisError) as error:
            raise RedisUnavailable(str(error) or type(error).__name__) from error
        channel.close("it was only tried")

    def call(self, *command: Argument) -> "asyncio.Future[Any]":
        """Sends a command; the future raises RedisUnavailable where there is no result.

        Raises:
            RedisUnavailable: there is nobody to send it to.
        """
        channel = self._channel
        if channel is None:
            raise RedisUnavailable("no connection")
        if channel.late:
            raise RedisUnavailable("its answers are late")
        return channel.send(command)

    async def evaluate(self, script: Script, keys: str | Sequence[str], *arguments: Argument) -> Any:
        """The result of a script on some keys of one slot, in one round trip once Redis knows the script."""
        keys, began = (keys,) if isinstance(keys, str) else keys, time.monotonic()
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except RedisUnavailable as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        try:
            async with asyncio.timeout(TIMEOUT_S - (time.monotonic() - began)):
                return await self.call("EVAL", script.text, len(keys), *keys, *arguments)
        except TimeoutError:
            raise RedisUnavailable("no answer in time, since it did not know the script") from None

    async def _connect(self) -> "_Channel":
        channel = await dial(self._address, self._finder, _Channel)
        try:
            await self._introduce(channel)
        except BaseException:
            channel.close("it was not introduced")
            raise
        return channel

    async def _introduce(self, channel: "_Channel") -> None:
        """Raises RedisUnavailable where this server is none for us."""
        for command in introduction(self._address):
            reply: object
            try:
                reply = await channel.send(command)
            except RedisUnavailable as error:
                reply = error
            if reason := objection(self._address, command, reply):
                raise RedisUnavailable(reason)


class _Channel(asyncio.Protocol):
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
        self._due: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.late = False
        self.lost: asyncio.Future[str] = self._loop.create_future()

    def send(self, command: tuple[Argument, ...]) -> "asyncio.Future[Any]":
        future = self._loop.create_future()
        if self.lost.done():
            future.set_exception(RedisUnavailable(self.lost.result()))
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub is too narrow
        self._due.append((future, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(TIMEOUT_S, self._look)
        return future

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
                future, _ = due.popleft()
                if isinstance(reply, hiredis.ReplyError):
                    ends = ends or ENDS.get(str(reply).partition(" ")[0])
                if future.done():
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    future.set_exception(RedisUnavailable(str(reply)))
                else:
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.close(f"it does not speak Redis' protocol: {error}")
        if not due and self._reader.has_data():
            self.close("it says what nobody asked for")
        if not due:
            self.late = False
        if ends:
            self.close(ends)

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
        for future, _ in self._due:
            if not future.done():
                future.set_exception(RedisUnavailable(reason))
