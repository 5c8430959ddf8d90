"""A worker's share of a key's limits while Redis is away: token buckets and counts of its own."""

import time
from collections import Counter, defaultdict

from gateway.context import Quota, RequestContext


class Shares:
    """
    Args:
        workers: how many share a limit when each decides alone.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # By key and limit: when its bucket will be full again.
        self._full_at: dict[tuple[str, str, int], float] = defaultdict(float)
        self._open: Counter[tuple[str, str]] = Counter()

    def take(self, context: RequestContext, quota: Quota, tokens: int) -> float:
        """Takes tokens and a place, or neither; returns how many seconds to wait, 0 when it was granted."""
        who, now = (context.tenant, context.key_name), time.monotonic()
        if quota.concurrency and self._open[who] >= max(quota.concurrency // self._workers, 1):
            return 1.0
        after = {}
        for number, (limit, period_s) in enumerate(_rates(quota)):
            share = max(limit / self._workers, 1)
            bucket = (*who, number)
            after[bucket] = max(self._full_at[bucket], now) + min(tokens, share) * period_s / share
            if (over := after[bucket] - now - period_s) > 0:
                return over
        self._full_at |= after
        self._open[who] += 1
        return 0.0

    def give_back(self, context: RequestContext) -> None:
        """Frees the place; what was reserved stays taken, which errs on the safe side."""
        self._open[context.tenant, context.key_name] -= 1


def _rates(quota: Quota) -> list[tuple[float, float]]:
    """Tokens in so many seconds: of a day and a month, an hour's worth in an hour."""
    rates = [
        (quota.tokens_per_minute, 60.0),
        (quota.tokens_per_day / 24, 3600.0),
        (quota.tokens_per_month / 720, 3600.0),
    ]
    return [rate for rate in rates if rate[0]]
