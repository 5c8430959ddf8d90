"""The exact cache: the answer to a request that was asked before, by the same tenant, word for word.

    {llmgw}:cache:<BLAKE2b of tenant, endpoint, the model's revision and the canonical request>

Reading costs one command in the request's round trip to Redis, which also leaves a claim where there is no answer yet
(`claim.py`); writing waits for no reply. Without Redis there is no cache, and nothing waits for it.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import orjson

from gateway.cache.claim import LEASE_MS, MARK, Claim
from gateway.cache.entry import BadEntry, Entry, decode, encode
from gateway.metrics import Metrics
from gateway.redis_channel import RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_form import Form
from gateway.redis_link import RedisLink
from gateway.redis_part import RedisPart
from gateway.redis_script import Script

log = logging.getLogger(__name__)

# How the answer travels, and not what it says.
_TRANSPORT = frozenset({"stream", "stream_options"})
# How a Redis refuses that would still read: it is full, a replica, lacks some, or cannot write its file.
_READS_ONLY = ("OOM", "READONLY", "NOREPLICAS", "MISCONF")
_CLAIM, _STORE = Form("SET", None, None, "NX", "GET", "PX", None), Form("SET", None, None, "EX", None)
# As orjson writes a number that it read with fewer digits than it had: an integer of more than 64 bits among them. A
# text that looks like it does no harm.
_BEYOND = re.compile(rb"e\+[0-9]+[],}]")
_TAKE = Script(resources.files("gateway.cache").joinpath("take.lua").read_text())


class ExactCache:
    """
    Args:
        link: None where there is no Redis.
        ttl_s: how long an entry lasts; 0 turns the cache off.
        max_bytes: of one answer; longer ones are not kept.

    Attributes:
        on: there is a cache.
    """

    def __init__(self, link: RedisLink | None, ttl_s: int, max_bytes: int, metrics: Metrics) -> None:
        self.max_bytes = max_bytes
        self.on = link is not None and ttl_s > 0
        self._link = link if ttl_s else None
        self._ttl_s = ttl_s
        self._refuses = False  # to write, as far as is known: a claim would only cost a second round trip
        self._metrics = metrics
        # Apart: a Redis that is full still answers.
        self._reads = RedisPart("cache", metrics, log, "the cache is in use", "the cache is not in use", link)
        self._writes = RedisPart("cache_writes", metrics, log, "the cache is written", "the cache is not written", link)

    @property
    def available(self) -> bool:
        """Whether Redis did what it was asked for last."""
        return self._reads.working

    def look_up(self, key: str, claim: Claim | None) -> "asyncio.Future[Any] | None":
        """Asks for an entry without waiting, and leaves the claim where there is none.

        `read` takes the reply; a future that is not given to it is cancelled.
        """
        if self._link is None:
            return None
        try:
            if claim is None or self._refuses:
                return self._link.call("GET", key)
            return self._link.send(_CLAIM.packed(key.encode(), claim.data, b"%d" % LEASE_MS))
        except RedisUnavailable as error:
            self._reads.fails(error)
            return None

    async def read(self, key: str, pending: "asyncio.Future[Any] | None") -> Entry | Claim | None:
        """The entry that was asked for, or who is making it.

        None when there is neither, or none that can be trusted, which is deleted.
        """
        if pending is None or self._link is None:
            return None
        try:
            try:
                data = await pending
            except RedisUnavailable as error:
                if not str(error).startswith(_READS_ONLY):
                    raise
                self._written(error)  # a claim is a write
                data = await self._link.call("GET", key)
        except RedisUnavailable as error:
            self._reads.fails(error)
            return None
        self._reads.works()
        return None if data is None else self._found(key, data)

    async def take(self, key: str, lost: Claim, claim: Claim | None) -> Entry | Claim | None:
        """Puts a claim, or nothing, in the place of a lost one; what else is there by now is returned as by `read`."""
        if self._link is None:
            return None
        try:
            data = await self._link.evaluate(_TAKE, key, lost.data, claim.data if claim else b"", LEASE_MS)
        except RedisUnavailable:  # the next request says so
            return None
        return self._found(key, data)

    def release(self, key: str, claim: Claim) -> None:
        """Takes a claim away, without waiting for Redis: nobody makes that answer any more."""
        if self._link is not None:
            self._link.tell_script(_unheard, _TAKE, key, claim.data, b"", LEASE_MS)

    def renew(self, key: str) -> None:
        """A claim on `key` goes on; an answer that has taken its place lasts longer anyway."""
        if self._link is not None:
            self._link.tell(_unheard, ("PEXPIRE", key, LEASE_MS, "GT"))

    def _found(self, key: str, data: bytes | None) -> Entry | Claim | None:
        if data is None:
            return None
        try:
            if data.startswith(MARK):
                return Claim.parse(data)
            # What an entry says of each part of an answer can be as long as the part.
            return decode(data, key, 4 * self.max_bytes)
        except BadEntry as error:
            log.warning("a cache entry is of no use and was deleted: %s", error)
            self._metrics.cache_bad_entries.inc()
            if self._link is not None:
                self._link.tell(_unheard, ("DEL", key))
            return None

    def write(self, key: str, entry: Entry) -> bool:
        """Stores an entry, without waiting for Redis; returns whether: an answer that is not text is not kept."""
        try:
            data = encode(entry, key)
        except UnicodeDecodeError:
            return False
        if self._link is not None:
            self._link.tell(self._written, _STORE.packed(key.encode(), data, b"%d" % self._ttl_s))
        return True

    def _written(self, error: RedisUnavailable | None) -> None:
        self._refuses = error is not None and str(error).startswith(_READS_ONLY)
        if error is None:
            self._writes.works()
        else:
            self._writes.fails(error)


def _unheard(_: RedisUnavailable | None) -> None:
    """A Redis that takes no writes still takes these, and one that does not has said so elsewhere."""


def cache_key(tenant: str, endpoint: str, revision: str, payload: Mapping[str, Any], body: bytes = b"") -> str:
    """One key for requests that ask for the same, however they write it down.

    Args:
        payload: the request, parsed.
        body: as it came, which counts where it may have digits that the payload has not.
    """
    asked = payload
    if not _TRANSPORT.isdisjoint(payload):
        asked = {name: value for name, value in payload.items() if name not in _TRANSPORT}
    canonical = orjson.dumps([tenant, endpoint, revision, asked], option=orjson.OPT_SORT_KEYS)
    digest = hashlib.blake2b(canonical, digest_size=32)
    if canonical.find(b"e+") >= 0 and _BEYOND.search(canonical):
        digest.update(body)
    return f"{TAG}:cache:{digest.hexdigest()}"
