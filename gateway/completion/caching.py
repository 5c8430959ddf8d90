"""The cache's part of the completion path: asked on the way in, filled on the way out."""

import asyncio
from typing import Any, Literal

from gateway.cache.claim import Claim
from gateway.cache.entry import Entry
from gateway.cache.exact import ExactCache, cache_key
from gateway.cache.mail import Mail
from gateway.cache.policy import Policy, policy
from gateway.completion.cached import CachedAnswer, serves
from gateway.completion.metering import Bill
from gateway.completion.request import Call
from gateway.completion.semantic import Question, Semantic
from gateway.context import RequestContext
from gateway.metrics import CacheOutcome, Metrics
from gateway.routing.pool import Pool

# Of an answer that an engine makes for who asked, and of one in which the cache had no part, where there is one.
MISS = (b"x-llmgw-cache", b"miss")
BYPASS = (b"x-llmgw-cache", b"bypass")


class Caching:
    """
    Args:
        mail: whose claims are left where there is no answer yet.
        paced: see CachedAnswer.
        semantic: None where no model has a threshold.
    """

    def __init__(
        self, cache: ExactCache, mail: Mail, metrics: Metrics, *, paced: bool, semantic: Semantic | None = None
    ) -> None:
        self.semantic = semantic
        self.cache = cache
        self.mail = mail
        self.paced = paced
        self.metrics = metrics

    def begin(self, call: Call, context: RequestContext, pool: Pool) -> "Lookup | None":
        """Asks the cache without waiting for it; None where it has no part. `pool` is the model's.

        It has none where another model stands in: not everybody who asks for this one may use that.
        """
        if not self.cache.on or pool.model != call.model:
            return None
        sampled, control = call.generates, context.cache_control
        allowed = policy(call.payload, sampled=sampled, key=context.cache, cache_control=control)
        if allowed is None:
            return None
        key = cache_key(context.tenant, call.endpoint, pool.revision, call.payload, call.body)
        if not allowed.read:
            return Lookup(self, call, allowed, key, None, None)
        hurries = context.until is not None
        claim = None if hurries else self.mail.claim(stream=call.stream, usage=call.wants_usage)
        lookup = Lookup(self, call, allowed, key, claim, self.cache.look_up(key, claim))
        if self.semantic is not None:
            lookup.question = self.semantic.question(call, context, pool.revision)
        lookup.hurries, lookup.batch = hurries, context.priority == "batch"
        return lookup


class Lookup:
    """One request at the cache.

    Attributes:
        claim: left where there is no answer yet, so that who asks meanwhile finds this worker; None where nobody does.
        holder: the claim of who was faster.
        question: for the semantic cache, where that has a part too.
        batch: its request waits behind interactive ones.
        hurries: its request has a deadline of its own, which nobody else's answer should end at or outlast.
    """

    question: Question | None = None
    hurries = False
    batch = False
    _noted = False

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
        return self._allowed.read and not self.hurries

    async def answer(self, bill: Bill) -> CachedAnswer | None:
        """The answer from the cache, if there is one that will do; the bill is told, or cancelled where this raises."""
        if self._pending is None:
            return None
        try:
            found = self._answer(await self._caching.cache.read(self.key, self._pending))
            if found is None and self.holder is None and self.question is not None:
                found = await self._near(self.question)
        except BaseException:
            bill.cancel()
            raise
        if found is not None:
            bill.saved(found.usage)
        return found

    async def _near(self, question: Question) -> CachedAnswer | None:
        """That of a question that asks the same."""
        near = await question.look_up(self._will_do)
        if near is None:
            return None
        if self.claim is not None:  # nobody makes it here
            self._caching.cache.release(self.key, self.claim)
        return self._cached(near, "semantic")

    def drop(self) -> None:
        """Nobody wants to know any more."""
        if self._pending is not None and not self._pending.cancel():
            self._pending.exception()  # fetched, or asyncio would log it

    async def again(self, lost: Claim | None, bill: Bill) -> CachedAnswer | None:
        """The same, now that nobody makes the answer any more that was claimed so."""
        if lost is None:
            return None
        self.claim = self._caching.mail.claim(stream=self.call.stream, usage=self.call.wants_usage)
        try:
            found = self._answer(await self._caching.cache.take(self.key, lost, self.claim))
        except BaseException:
            bill.cancel()
            raise
        if found is not None:
            bill.saved(found.usage)
        return found

    def keep(self, entry: Entry) -> bool:
        """Stores the answer; returns whether it could be."""
        kept = self._caching.cache.write(self.key, entry)
        if kept and self.question is not None:
            self.question.keep()
        return kept

    def note(self, outcome: CacheOutcome) -> None:
        """Counts the request: once, also where it loses what it shared, and has to be answered anew."""
        if self._noted:
            return
        self._noted = True
        self._caching.metrics.note_cache(outcome)

    def _answer(self, found: Entry | Claim | None) -> CachedAnswer | None:
        if isinstance(found, Claim):
            self.holder = found
            return None
        self.holder = None
        if found is None:
            return None
        if self._will_do(found):
            return self._cached(found, "hit")
        self.claim = None  # it was not left, and to renew it would be to prolong what stands there
        return None

    def _cached(self, entry: Entry, outcome: Literal["hit", "semantic"]) -> CachedAnswer:
        self.note(outcome)
        return CachedAnswer(entry, self.call, paced=self._caching.paced, outcome=outcome)

    def _will_do(self, entry: Entry) -> bool:
        oldest = self._allowed.max_age_s
        return serves(entry, self.call) and (oldest is None or entry.age_s <= oldest)
