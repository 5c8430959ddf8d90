"""What a key may use: tokens in a minute, a day and a month, and answers at the same time.

Over all workers and machines together: before an answer its tokens are reserved in Redis, after it what was really used
takes their place. A place among the open answers is a lease that its worker renews: one that dies leaks nothing. With
Redis away each worker grants its share (`shares.py`).
"""

import asyncio
import itertools
import logging
import secrets
from datetime import UTC, datetime, timedelta

from gateway.context import Quota, RequestContext
from gateway.errors import GatewayError, OverBudget, RateLimited
from gateway.limits.scripts import script
from gateway.limits.shares import Limit, Shares, Verdict
from gateway.limits.told import Headers, told
from gateway.metrics import Metrics
from gateway.redis_channel import RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink
from gateway.redis_part import RedisPart

log = logging.getLogger(__name__)

LEASE_S = 60
RENEW_S = 15.0

_RESERVE, _SETTLE, _RENEW = script("window", "reserve"), script("window", "settle"), script("renew")


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
        """Renews the leases of open answers until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            for reservation in tuple(self.open):
                await reservation.renew()


class Reservation:
    """One answer's tokens and place among the open ones."""

    def __init__(self, owner: Reservations, context: RequestContext, quota: Quota, tokens: int, id_: str) -> None:
        self._owner = owner
        self._context = context
        self._quota = quota
        self._tokens = tokens
        self._id = id_
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

    async def renew(self) -> None:
        link = self._owner.link
        if link is not None and self._quota.concurrency and not self._alone:
            try:
                await link.evaluate(_RENEW, self._keys[1], self._id, LEASE_S * 1_000_000)
            except RedisUnavailable as error:
                log.info("a lease was not renewed: %s", error)

    async def _ask(self) -> Verdict:
        owner, quota = self._owner, self._quota
        if owner.link is not None:
            try:
                limit, wait_us, tokens, empty_in_us, at = await owner.link.evaluate(
                    _RESERVE, self._keys, self._tokens, *quota, self._id, LEASE_S * 1_000_000, *self._seconds_left
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
        arguments = (self._tokens, used, self._quota.tokens_per_minute, asked.result().at, self._id)
        try:
            self._owner.link.evaluate(_SETTLE, self._keys, *arguments).add_done_callback(_unsettled)
        except RedisUnavailable as error:
            log.info("a reservation was not settled: %s", error)


def _unsettled(settled: "asyncio.Future[object]") -> None:
    """The lease ends by itself, and what was reserved stays taken: that errs on the safe side."""
    if not settled.cancelled() and (error := settled.exception()):
        log.info("a reservation was not settled: %s", error)


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
