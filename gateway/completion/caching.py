"""The cache's part of the completion path: asked on the way in, filled on the way out."""

import asyncio
from typing import Any

from gateway.cache.exact import ExactCache, cache_key
from gateway.cache.policy import Policy, policy
from gateway.completion.answer import Answer
from gateway.completion.cached import CachedAnswer, KeptAnswer, serves
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.metrics import Metrics

_BYPASS = ((b"x-llmgw-cache", b"bypass"),)


class Caching:
    """
    Args:
        paced: see CachedAnswer.
    """

    def __init__(self, cache: ExactCache, metrics: Metrics, *, paced: bool) -> None:
        self.cache = cache
        self.paced = paced
        self.metrics = metrics

    def begin(self, call: Call, context: RequestContext, revision: str) -> "Lookup | None":
        """Asks the cache without waiting for it; None where it has no part. `revision` is the model's."""
        if not self.cache.on:
            return None
        sampled, control = call.endpoint.streams, context.cache_control
        allowed = policy(call.payload, sampled=sampled, key=context.cache, cache_control=control)
        if allowed is None:
            return None
        key = cache_key(context.tenant, call.endpoint, revision, call.payload)
        return Lookup(self, call, allowed, key, self.cache.look_up(key) if allowed.read else None)

    def bypassed(self, answer: Answer) -> Answer:
        """An answer in which the cache had no part, and which says so where there is a cache."""
        if self.cache.on:
            answer.headers = _BYPASS
        return answer


class Lookup:
    """One request at the cache."""

    def __init__(
        self, caching: Caching, call: Call, allowed: Policy, key: str, pending: "asyncio.Future[Any] | None"
    ) -> None:
        self._caching = caching
        self._call = call
        self._allowed = allowed
        self._key = key
        self._pending = pending

    async def answer(self) -> CachedAnswer | None:
        """The answer from the cache, if there is one that will do."""
        if self._pending is None:
            return None
        entry = await self._caching.cache.read(self._key, self._pending)
        oldest = self._allowed.max_age_s
        if entry is None or not serves(entry, self._call) or (oldest is not None and entry.age_s > oldest):
            return None
        self._caching.metrics.note_cache("hit")
        return CachedAnswer(entry, self._call, paced=self._caching.paced)

    def keep(self, answer: Answer) -> Answer:
        """The engine's answer, noted on its way."""
        cache = self._caching.cache
        self._caching.metrics.note_cache("miss")
        return KeptAnswer(answer, self._call, cache.max_bytes, lambda entry: cache.write(self._key, entry))
