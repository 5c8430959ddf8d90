"""Letters from worker to worker, over Redis' pub/sub.

    {llmgw}:mail:<worker>    each worker subscribes to its own

Nothing is stored, neither in Redis nor here: what a letter says is asked for when it goes out, so a slow Redis makes
fewer and longer ones. A letter may be lost; who waits for it finds out by what comes next, or by silence.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.cache.claim import Claim
from gateway.metrics import Metrics
from gateway.redis_cluster import TAG
from gateway.redis_follower import stopping
from gateway.redis_part import RedisPart

log = logging.getLogger(__name__)

RETRY_S = 0.5
_POLL_S = 1.0
# What happens within it goes out together.
_TURN_S = 0.005


class Letter(Protocol):
    """
    Attributes:
        to: a worker.
    """

    to: str

    def text(self) -> bytes:
        """What there is to say now."""

    def refused(self) -> None:
        """Told when there is no such worker any more."""


class Mail:
    """One worker's.

    Args:
        redis: None where there is none, and nobody to write to.

    Attributes:
        worker: the address; empty until `run`, since workers fork after this was built.
        open: letters to this worker arrive.
    """

    def __init__(self, redis: Redis | None, metrics: Metrics) -> None:
        self.worker = ""
        self.open = False
        self._redis = redis
        self._state = RedisPart(
            "flights",
            metrics,
            log,
            "answers are shared with other workers",
            "answers are shared within each worker only",
        )
        self._numbers = itertools.count()
        self._out: dict[Letter, None] = {}
        self._more = asyncio.Event()

    def claim(self, *, stream: bool, usage: bool) -> Claim | None:
        """A new claim of this worker's; None while nobody could write to it."""
        return Claim.of(self.worker, next(self._numbers), stream=stream, usage=usage) if self.open else None

    def send(self, letter: Letter) -> None:
        """Sends it soon; once, however often it is given until then."""
        if self._redis is not None:
            self._out[letter] = None
            self._more.set()

    async def run(self, read: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        """Until it is cancelled; what there is to say then still goes out.

        Args:
            read: takes what arrives.
            opened: told when letters begin to arrive: until then some may have been lost.
        """
        if self._redis is None:
            return
        self.worker = secrets.token_hex(8)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._receive(self._redis, read, opened))
            both.create_task(self._deliver(self._redis))

    async def _receive(self, redis: Redis, read: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        while not stopping():
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as inbox:
                    await inbox.subscribe(_address(self.worker))
                    await inbox.get_message(ignore_subscribe_messages=True, timeout=_POLL_S)
                    self.open = True
                    self._state.works()
                    opened()
                    while not stopping():
                        if (message := await inbox.get_message(timeout=_POLL_S)) is not None:
                            read(message["data"])
            except (RedisError, OSError, TimeoutError) as error:
                self._state.fails(error)
            except Exception:  # a worker that stops reading in silence would keep others waiting for good
                log.exception("a letter could not be read")
            finally:
                self.open = False
            await asyncio.sleep(RETRY_S)

    async def _deliver(self, redis: Redis) -> None:
        try:
            while not stopping():
                await self._more.wait()
                try:
                    await self._empty(redis)
                except Exception:  # as above
                    log.exception("a letter could not be written")
                await asyncio.sleep(_TURN_S)
        finally:
            await self._empty(redis)

    async def _empty(self, redis: Redis) -> None:
        self._more.clear()
        letters, self._out = list(self._out), {}
        if not letters:
            return
        try:
            async with redis.pipeline(transaction=False) as commands:
                for letter in letters:
                    commands.publish(_address(letter.to), letter.text())
                readers = await commands.execute()
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("letters to other workers were lost: %s", type(error).__name__)
            await asyncio.sleep(RETRY_S)
            return
        for letter, count in zip(letters, readers, strict=True):
            if not count:
                letter.refused()


def _address(worker: str) -> str:
    return f"{TAG}:mail:{worker}"
