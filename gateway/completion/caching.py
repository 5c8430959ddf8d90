"""The cache's part of the completion path: asked on the way in, filled on the way out."""

import asyncio
from typing import Any, Literal

from gateway.cache.claim import Claim
from gateway.cache.entry import Entry
from gateway.cache.exact import ExactCache, cache_key
from gateway.cache.mail import Mail
from gateway.cache.policy import Policy, policy
from gateway.completion.answer import Answer
from gateway.completion.cached import CachedAnswer, serves
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.metrics import Metrics

_BYPASS = ((b"x-llmgw-cache", b"bypass"),)


class Caching:
    """
    Args:
        mail: whose claims are left where there is no answer yet.
        paced: see CachedAnswer.
    """

    def __init__(self, cache: ExactCache, mail: Mail, metrics: Metrics, *, paced: bool) -> None:
        self.cache = cache
        self.mail = mail
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
        if not allowed.read:
            return Lookup(self, call, allowed, key, None, None)
        claim = self.mail.claim(stream=call.stream, usage=call.wants_usage)
        return Lookup(self, call, allowed, key, claim, self.cache.look_up(key, claim))

    def bypassed(self, answer: Answer) -> Answer:
        """An answer in which the cache had no part, and which says so where there is a cache."""
        if self.cache.on:
            answer.headers = _BYPASS
        return answer


class Lookup:
    """One request at the cache.

    Attributes:
        claim: left where there is no answer yet, so that who asks meanwhile finds this worker; None where nobody does.
        holder: the claim of who was faster.
    """

    def __init__(
        self,
        caching: Caching,
        call: Call,
        allowed: Policy,
        key: str,
        claim: Claim | None,
        pending: "asyncio.Future[Any] | None",
    ) -> None:
        self.call = call
        self.key = key
        self.claim = claim
        self.holder: Claim | None = None
        self._caching = caching
        self._allowed = allowed
        self._pending = pending

    @property
    def shares(self) -> bool:
        """Whether the answer may be one that is being made for somebody else."""
        return self._allowed.read

    async def answer(self) -> CachedAnswer | None:
        """The answer from the cache, if there is one that will do."""
        if self._pending is None:
            return None
        return self._answer(await self._caching.cache.read(self.key, self._pending))

    async def again(self, lost: Claim | None) -> CachedAnswer | None:
        """The same, now that nobody makes the answer any more that was claimed so."""
        if lost is None:
            return None
        self.claim = self._caching.mail.claim(stream=self.call.stream, usage=self.call.wants_usage)
        return self._answer(await self._caching.cache.take(self.key, lost, self.claim))

    def keep(self, entry: Entry) -> bool:
        """Stores the answer; returns whether it could be."""
        return self._caching.cache.write(self.key, entry)

    def note(self, outcome: Literal["hit", "miss", "shared"]) -> None:
        self._caching.metrics.note_cache(outcome)

    def _answer(self, found: Entry | Claim | None) -> CachedAnswer | None:
        if isinstance(found, Claim):
            self.holder = found
            return None
        self.holder, oldest = None, self._allowed.max_age_s
        if found is None or not serves(found, self.call) or (oldest is not None and found.age_s > oldest):
            return None
        self.note("hit")
        return CachedAnswer(found, self.call, paced=self._caching.paced)
