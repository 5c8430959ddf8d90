"""A worker's share of a key's limits while Redis is away: token buckets and counts of its own."""

import time
from collections import Counter, defaultdict
from enum import IntEnum
from typing import NamedTuple

from gateway.context import Quota, RequestContext

# A clock's seconds plus and less a minute's are not always what they were.
_ROUNDING_S = 1e-6


class Limit(IntEnum):
    """Which limit is in the way; the numbers are those of reserve.lua."""

    NONE = 0
    PER_MINUTE = 1
    OPEN = 2
    PER_DAY = 3
    PER_MONTH = 4


class Verdict(NamedTuple):
    """
    Attributes:
        limit: that is in the way.
        wait_s: until it will not be.
        full_in_s: until all tokens of a minute are there again; 0 where they have no limit, or another is in the way.
    """

    limit: Limit
    wait_s: float = 0.0
    full_in_s: float = 0.0


class Shares:
    """
    Args:
        workers: how many share a limit when each decides alone.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # By key and limit: when its bucket will be full again.
        self._full_at: dict[tuple[str, str, Limit], float] = defaultdict(float)
        self._open: Counter[tuple[str, str]] = Counter()

    def take(self, context: RequestContext, quota: Quota, tokens: int) -> Verdict:
        """Takes tokens and a place, or neither."""
        who, now = (context.tenant, context.key_name), time.monotonic()
        if quota.concurrency and self._open[who] >= max(quota.concurrency // self._workers, 1):
            return Verdict(Limit.OPEN, 1.0)
        after = {}
        for limit, most, period_s in _rates(quota):
            share = max(most / self._workers, 1)
            before = max(self._full_at[(*who, limit)], now)
            full_at = before + min(tokens, share) * period_s / share
            if (over := full_at - now - period_s) > _ROUNDING_S:
                return Verdict(limit, over, before - now)
            after[(*who, limit)] = full_at
        self._full_at |= after
        self._open[who] += 1
        return Verdict(Limit.NONE, 0.0, max(after.get((*who, Limit.PER_MINUTE), 0.0) - now, 0.0))

    def give_back(self, context: RequestContext) -> None:
        """Frees the place; what was reserved stays taken, which errs on the safe side."""
        self._open[context.tenant, context.key_name] -= 1


def _rates(quota: Quota) -> list[tuple[Limit, float, float]]:
    """Tokens in so many seconds: of a day and a month, an hour's worth in an hour."""
    rates = [
        (Limit.PER_MINUTE, quota.tokens_per_minute, 60.0),
        (Limit.PER_DAY, quota.tokens_per_day / 24, 3600.0),
        (Limit.PER_MONTH, quota.tokens_per_month / 720, 3600.0),
    ]
    return [rate for rate in rates if rate[1]]
