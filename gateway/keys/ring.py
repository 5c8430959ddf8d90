"""The keys that a gateway accepts: those of its configuration, and those in Redis, which it follows.

A key is found in memory, so a request never waits for Redis. A change arrives at once by pub/sub, and within POLL_S
when that word is lost. With Redis away the last known keys stay.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from redis.asyncio import Redis

from gateway.errors import AuthenticationError, KeysUnavailable
from gateway.keys.stored import CHANGES, HASH, VERSION, StoredKey, digest, parse
from gateway.metrics import Metrics
from gateway.redis_follower import follow
from gateway.redis_part import RedisPart
from gateway.settings import Key

POLL_S = 0.5

log = logging.getLogger(__name__)


class KeyRing:
    """
    Args:
        configured: keys of the cluster file.
        redis: None when there is no Redis, or no secret for what is in it.
        secret: the cluster's key secret.

    Attributes:
        defined: any key was ever defined: a Redis that has lost them all opens nothing.
    """

    def __init__(self, configured: Iterable[Key], redis: Redis | None, secret: bytes, metrics: Metrics) -> None:
        self._configured = {key.hash: key for key in configured}
        self._redis = redis
        self._secret = secret
        self._stored: Mapping[str, tuple[StoredKey, float]] = {}
        self._version: bytes | None = None
        self._known = redis is None
        self.defined = bool(self._configured)
        self._part = RedisPart(
            "keys", metrics, log, "API keys are read", "API keys cannot be read; the last known ones stay"
        )

    def find(self, presented: bytes) -> Key:
        """The key with these bytes. Looked up by digest: how long that takes tells nothing about a key.

        Raises:
            AuthenticationError: there is none, or it has expired.
            KeysUnavailable: it may be one of those in Redis, which were never read yet.
        """
        now = time.time()
        key: Key | None = self._configured.get(f"sha256:{hashlib.sha256(presented).hexdigest()}")
        if key is None and self._stored:
            key, until = self._stored.get(digest(presented, self._secret), (None, 0.0))
            key = key if now < until else None
        if key is None:
            self.check_known()
            raise AuthenticationError("Unknown API key; check it, or ask its issuer for a new one.")
        if key.expires_at is not None and key.expires_at <= now:
            raise AuthenticationError("This API key has expired; ask its issuer for a new one.")
        return key

    @property
    def known(self) -> bool:
        """Whether it can be told which keys there are."""
        return self._known

    def check_known(self) -> None:
        """Raises KeysUnavailable while it cannot be told which keys there are."""
        if not self._known:
            raise KeysUnavailable("The API keys cannot be read at the moment. Please try again soon.")

    async def run(self) -> None:
        """Follows the keys in Redis until cancelled."""
        if self._redis is not None:
            await follow(self._redis, CHANGES, POLL_S, self._refresh, self._part.fails)

    async def _refresh(self, redis: Redis, _changed: Sequence[str]) -> None:
        version = await redis.get(VERSION)
        if not self._known or version != self._version:
            async with redis.pipeline(transaction=True) as both:
                both.get(VERSION)
                both.hgetall(HASH)
                self._version, records = await both.execute()
            self._load(records)
        self._part.works()

    def _load(self, records: Mapping[bytes | str, bytes | str]) -> None:
        """A record that cannot be read opens nothing, and changes nothing about the others."""
        keys, unreadable = parse(records)
        for id_, why in unreadable.items():
            log.warning("the stored API key %r is not usable and opens nothing: %s", id_, why)
        stored: dict[str, tuple[StoredKey, float]] = {}
        for key in keys:
            stored[key.hash] = key, float("inf")
            stored |= {old: (key, float(until)) for old, until in key.replaced.items()}
        self._stored, self._known, self.defined = stored, True, self.defined or bool(records)
