"""What a key may use: tokens in a minute, a day and a month, and answers at the same time.

Over all workers and machines together: before an answer its tokens are reserved in Redis, after it what was really used
takes their place. A place among the open answers is a lease that its worker renews: one that dies leaks nothing. With
Redis away each worker grants its share (`shares.py`), and keeps what Redis has to hear of answers that it granted.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from gateway.context import Quota, RequestContext
from gateway.errors import GatewayError, OverBudget, RateLimited
from gateway.limits.scripts import script
from gateway.limits.shares import Limit, Shares, Verdict
from gateway.limits.told import Headers, told
from gateway.metrics import Metrics
from gateway.redis_channel import Argument, RedisRefused, RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink
from gateway.redis_part import RedisPart
from gateway.redis_script import Script

log = logging.getLogger(__name__)

LEASE_S = 60
RENEW_S = 15.0
RETRY_S = 1.0
LAST_S = 1.0  # for the answers that a stop has cut off

_RESERVE, _SETTLE, _RENEW = script("window", "reserve"), script("window", "settle"), script("renew")


class Settlement(NamedTuple):
    """What `settle.lua` is told of an answer that Redis has granted."""

    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]


class Reservations:
    """
    Args:
        link: None where there is no Redis.
        workers: how many share a limit when each decides alone.
    """

    def __init__(self, link: RedisLink | None, workers: int, metrics: Metrics) -> None:
        self.link = link
        self.shares = Shares(workers)
        self.open: set[Reservation] = set()
        self._metrics = metrics
        self._ids = itertools.count()
        # Of answers that Redis has granted, while it does not listen: no more than were open then.
        self._unsettled: list[Settlement] = []
        self._worker = ""
        self.redis = RedisPart(
            "quotas", metrics, log, "what keys use is counted in Redis", "what keys use is counted per worker", link
        )

    def begin(self, context: RequestContext, quota: Quota, tokens: int) -> "Reservation":
        """Asks for tokens and a place without waiting; whoever gets it settles it, however it goes on."""
        self._worker = self._worker or secrets.token_hex(8)  # workers fork after this was built
        return Reservation(self, context, quota, tokens, f"{self._worker}-{next(self._ids)}")

    def judged_alone(self, error: RedisUnavailable) -> None:
        self._metrics.limits_alone.inc()
        self.redis.fails(error)

    async def run(self) -> None:
        """Works until cancelled; then sees off the answers that end with the worker."""
        stopped = None
        try:
            await self._keep()
        except asyncio.CancelledError as error:
            stopped = error
        until = time.monotonic() + LAST_S
        while self.open and time.monotonic() < until:  # noqa: ASYNC110  # an event would be in each answer's way
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # what was told last is on its way then
        if stopped is not None:
            raise stopped

    async def _keep(self) -> None:
        """Renews the leases of open answers, and settles what Redis did not hear of."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(min(RETRY_S, RENEW_S))
            if self.link is None or not self.link.live:
                continue
            waiting, self._unsettled = self._unsettled, []
            for settlement in waiting:
                self.settle(settlement)
            if time.monotonic() - renewed >= RENEW_S:
                renewed = time.monotonic()
                self._renew()

    def settle(self, settlement: Settlement) -> None:
        """Without waiting; where Redis is away, or does not do it for now, another time."""
        told = self._tell(_SETTLE, settlement.keys, *settlement.arguments)
        if told is None:
            self._unsettled.append(settlement)
        else:
            told.add_done_callback(lambda told: self._settled(told, settlement))

    def _settled(self, told: "asyncio.Future[object]", settlement: Settlement) -> None:
        error = None if told.cancelled() else told.exception()
        if isinstance(error, RedisRefused) and error.passes:
            self._unsettled.append(settlement)

    def _renew(self) -> None:
        """All in one turn of the event loop: an answer that ends is settled at Redis after it was renewed."""
        ids = defaultdict[str, list[str]](list)
        for reservation in self.open:
            if reservation.place is not None:
                ids[reservation.place].append(reservation.id)
        for place, open_ in ids.items():
            self._tell(_RENEW, place, LEASE_S * 1_000_000, *open_)

    def _tell(self, script: Script, keys: str | Sequence[str], *arguments: Argument) -> "asyncio.Future[Any] | None":
        """Without waiting for the reply; None where Redis was not there."""
        if self.link is None:
            return None
        try:
            told = self.link.evaluate(script, keys, *arguments)
        except RedisUnavailable:
            return None
        told.add_done_callback(_told_late)
        return told


class Reservation:
    """One answer's tokens and place among the open ones.

    Attributes:
        id: of the answer.
    """

    def __init__(self, owner: Reservations, context: RequestContext, quota: Quota, tokens: int, id_: str) -> None:
        self._owner = owner
        self._context = context
        self._quota = quota
        self._tokens = tokens
        self.id = id_
        now = datetime.now(UTC)
        self._seconds_left = [int((end - now).total_seconds()) + 1 for end in (_next_day(now), _next_month(now))]
        who = f"{len(context.tenant)}:{context.tenant}/{context.key_name}"
        days = (now.strftime("%Y-%m-%d"), now.strftime("%Y-%m"))
        self._keys = (
            f"{TAG}:limit:tpm:{who}",
            f"{TAG}:limit:open:{who}",
            *(f"{TAG}:used:{who}:{day}" for day in days),
        )
        self._alone = False
        self._asked = asyncio.create_task(self._ask())
        self._settled = False

    async def granted(self) -> Headers:
        """What the answer tells of the tokens; raises RateLimited or OverBudget when a limit is in the way."""
        verdict = await asyncio.shield(self._asked)
        if verdict.limit is not Limit.NONE:
            raise _refusal(verdict, self._quota)
        self._owner.open.add(self)
        return _told(verdict, self._quota) if self._quota.tokens_per_minute else ()

    def settle(self, used: int) -> None:
        """Puts the tokens that were used in the place of the reserved ones. Idempotent."""
        self._owner.open.discard(self)
        if not self._settled:
            self._settled = True
            # One that was left before its reply still has to be given back, if it was granted.
            self._asked.add_done_callback(lambda asked: self._give_back(asked, used))

    @property
    def place(self) -> str | None:
        """Where Redis has its place among the open answers; None where it has none."""
        return self._keys[1] if self._quota.concurrency and not self._alone else None

    async def _ask(self) -> Verdict:
        owner, quota = self._owner, self._quota
        if owner.link is not None:
            try:
                lease: tuple[Argument, ...] = (self.id, LEASE_S * 1_000_000, *self._seconds_left)
                limit, wait_us, tokens, empty_in_us, at = await owner.link.evaluate(
                    _RESERVE, self._keys, self._tokens, *quota, *lease, late=self._granted_late
                )
            except RedisUnavailable as error:
                owner.judged_alone(error)
            else:
                owner.redis.works()
                remaining = max(quota.tokens_per_minute - tokens, 0)
                return Verdict(Limit(limit), wait_us / 1e6, remaining, -(-empty_in_us // 1000), at)
        self._alone = True
        return owner.shares.take(self._context, quota, self._tokens)

    def _give_back(self, asked: "asyncio.Task[Verdict]", used: int) -> None:
        if asked.cancelled() or asked.exception() is not None or asked.result().limit is not Limit.NONE:
            return
        if self._alone or self._owner.link is None:
            self._owner.shares.give_back(self._context, self._quota, self._tokens, used, asked.result().at)
            return
        self._owner.settle(self._settlement(used, asked.result().at))

    def _granted_late(self, reply: list[int]) -> None:
        """This worker has judged by itself meanwhile: what Redis has reserved after all is given back."""
        limit, *_, at = reply
        if limit == Limit.NONE:
            self._owner.settle(self._settlement(0, at))

    def _settlement(self, used: int, at: int) -> Settlement:
        quota = self._quota
        limits = (quota.tokens_per_minute, at, self.id, quota.tokens_per_day, quota.tokens_per_month)
        return Settlement(self._keys, (self._tokens, used, *limits))


def _told_late(told: "asyncio.Future[object]") -> None:
    """Most likely it was heard all the same; if not, the lease ends by itself, and what was reserved stays taken."""
    if not told.cancelled() and (error := told.exception()):
        log.info("Redis has not said that it heard of an answer: %s", error)


def _next_day(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _next_month(now: datetime) -> datetime:
    return (_next_day(now.replace(day=1)) + timedelta(days=31)).replace(day=1)


def _told(verdict: Verdict, quota: Quota) -> Headers:
    return told(b"tokens", quota.tokens_per_minute).headers(verdict.remaining, verdict.full_in_ms)


def _refusal(verdict: Verdict, quota: Quota) -> GatewayError:
    limit, wait_s = verdict.limit, verdict.wait_s
    if limit is Limit.PER_MINUTE:
        text = f"This key may use {quota.tokens_per_minute} tokens per minute; try again in {wait_s:.2f} seconds."
        return RateLimited(text, wait_s=wait_s, headers=_told(verdict, quota))
    if limit is Limit.OPEN:
        text = f"This key may have {quota.concurrency} answers at the same time; try again when one has ended."
        headers = told(b"concurrency", quota.concurrency).headers(0, int(wait_s * 1000))
        return RateLimited(text, wait_s=wait_s, headers=headers)
    period, most = ("day", quota.tokens_per_day) if limit is Limit.PER_DAY else ("month", quota.tokens_per_month)
    return OverBudget(f"This key has used its {most} tokens of this {period} (UTC).", wait_s=wait_s)
