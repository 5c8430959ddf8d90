"""Following what is in Redis: at once when a channel says so, and now and then in case a word was lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

RETRY_S = 1.0

log = logging.getLogger(__name__)


def stopping() -> bool:
    """Whether this task was cancelled: redis-py waits by asyncio.wait_for, which Python 3.11 lets swallow that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def follow(
    redis: Redis,
    channel: str,
    poll_s: float,
    refresh: Callable[[Redis, Sequence[str]], Awaitable[None]],
    away: Callable[[Exception], None],
) -> None:
    """Until it is cancelled.

    Args:
        poll_s: how long no word may be all there is.
        refresh: reads what is there; given Redis and the words that have come since the last time.
        away: told each time that Redis did not answer.
    """
    while not stopping():
        try:
            async with redis.pubsub() as changes:
                await changes.subscribe(channel)
                words: Sequence[str] = ()
                while not stopping():
                    await refresh(redis, words)
                    words = await _words(changes, poll_s)
        except (RedisError, OSError, TimeoutError) as error:
            away(error)
        except Exception:  # a follower that ends in silence would leave everything as it is for good
            log.exception("%s cannot be followed; trying again", channel)
        await asyncio.sleep(RETRY_S)


async def _words(changes: PubSub, poll_s: float) -> list[str]:
    words = []
    message = await changes.get_message(ignore_subscribe_messages=True, timeout=poll_s)
    while message is not None:
        words.append(text(message["data"]))
        message = await changes.get_message(ignore_subscribe_messages=True, timeout=0.0)
    return words


def text(value: bytes | str) -> str:
    """What Redis has given, whatever bytes it is."""
    return value if isinstance(value, str) else value.decode(errors="replace")
