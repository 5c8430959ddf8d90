"""One multiplexed connection to Redis for the completion path, kept open.

Redis away or slow must cost a request next to nothing: a call fails at once while there is no connection, and after
TIMEOUT_S when an answer is due. After that calls fail at once until Redis has caught up.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from gateway.redis_address import parse
from gateway.redis_channel import Argument, Channel, Command, RedisUnavailable, Told
from gateway.redis_dial import dial
from gateway.redis_follower import stopping
from gateway.redis_introduction import introduction, objection
from gateway.redis_script import Script

log = logging.getLogger(__name__)

CONNECT_S = 1.0
RECONNECT_S = 0.5


_NO_CONNECTION = (OSError, TimeoutError, ValueError, RedisError, RedisUnavailable)


class RedisLink:
    """Keeps one connection, and sends everybody's commands over it.

    Args:
        url: see `redis_address.py`; of its TLS options `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` count.
    """

    def __init__(self, url: str) -> None:
        self._address = parse(url)
        self._finder = self._address.finder()
        self._channel: Channel | None = None

    @property
    def live(self) -> bool:
        """Whether there is a connection, and its answers are not late."""
        channel = self._channel
        return channel is not None and not channel.late and not channel.lost.done()

    async def run(self) -> None:
        """Stays connected until cancelled."""
        connected = True  # the first failure is news
        while not stopping():
            try:
                async with asyncio.timeout(CONNECT_S):
                    channel = await self._connect()
            except Exception as error:  # a link that ends in silence would count limits per worker for good
                if connected:
                    reason, defect = str(error) or type(error).__name__, not isinstance(error, _NO_CONNECTION)
                    log.warning("no connection to Redis (%s); trying again", reason, exc_info=defect)
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
        except _NO_CONNECTION as error:
            raise RedisUnavailable(str(error) or type(error).__name__) from error
        channel.close("it was only tried")

    def call(self, *command: Argument) -> "asyncio.Future[Any]":
        """Sends a command; the future raises RedisUnavailable where there is no result.

        Raises:
            RedisUnavailable: there is nobody to send it to.
        """
        return self.send(command)

    def send(self, command: Command) -> "asyncio.Future[Any]":
        """The same for one that may be packed already."""
        return self._live().send(command)

    def tell(self, told: Callable[[RedisUnavailable | None], None], command: Command) -> None:
        """Sends a command whose reply nobody waits for; `told` hears that it is there, or why there is none."""
        try:
            self._live().put(command, Told(told))
        except RedisUnavailable as error:
            told(error)

    def tell_script(
        self, told: Callable[[RedisUnavailable | None], None], script: Script, key: str, *arguments: Argument
    ) -> None:
        """The same with a script on one key."""
        try:
            self._live().put(("EVALSHA", script.sha, 1, key, *arguments), Told(told), script)
        except RedisUnavailable as error:
            told(error)

    def evaluate(
        self,
        script: Script,
        keys: str | Sequence[str],
        *arguments: Argument,
        late: Callable[[Any], None] | None = None,
    ) -> "asyncio.Future[Any]":
        """The result of a script on some keys of one slot, in one round trip once Redis knows the script.

        Args:
            late: told a result that comes after the future has failed.

        Raises:
            RedisUnavailable: as `call`.
        """
        keys = (keys,) if isinstance(keys, str) else keys
        return self._live().send(("EVALSHA", script.sha, len(keys), *keys, *arguments), script, late)

    def _live(self) -> Channel:
        channel = self._channel
        if channel is None:
            raise RedisUnavailable("no connection")
        if channel.late:
            raise RedisUnavailable("its answers are late")
        return channel

    async def _connect(self) -> Channel:
        channel = await dial(self._address, self._finder, Channel)
        try:
            await self._introduce(channel)
        except BaseException:
            channel.close("it was not introduced")
            raise
        return channel

    async def _introduce(self, channel: Channel) -> None:
        """Raises RedisUnavailable where this server is none for us."""
        for command in introduction(self._address):
            reply: object
            try:
                reply = await channel.send(command)
            except RedisUnavailable as error:
                reply = error
            if reason := objection(self._address, command, reply):
                raise RedisUnavailable(reason)
