"""A worker's share of a key's limits while Redis is away: windows and counts of its own."""

from collections import Counter
from enum import IntEnum
from time import monotonic_ns
from typing import NamedTuple

from gateway.context import Quota, RequestContext
from gateway.limits.window import SECOND_NS, SLOTS, Window, Windows

_MINUTE_NS = 60 * SECOND_NS


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
        remaining: tokens of the minute; 0 where they have no limit, or another is in the way.
        full_in_ms: until all of them are there again; 0 likewise.
        at: the time of the reservation, by the clock that settles it: Redis' seconds, or this worker's nanoseconds.
    """

    limit: Limit
    wait_s: float = 0.0
    remaining: int = 0
    full_in_ms: int = 0
    at: int = 0


class Shares:
    """
    Args:
        workers: how many share a limit when each decides alone.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # By tenant, key, limit and how much that is in 60 slots of so many nanoseconds.
        self._windows = Windows[tuple[str, str, Limit, int, int], Window](
            lambda key: Window(key[3], workers, key[4]), SLOTS * _MINUTE_NS * workers
        )
        self._open: Counter[tuple[str, str]] = Counter()

    def take(self, context: RequestContext, quota: Quota, tokens: int) -> Verdict:
        """Takes tokens and a place, or neither."""
        who, now = (context.tenant, context.key_name), monotonic_ns()
        if quota.concurrency and self._open[who] >= max(quota.concurrency // self._workers, 1):
            return Verdict(Limit.OPEN, 1.0)
        taken: list[tuple[Window, int]] = []
        windows = self._of(context, quota)
        for limit, window in windows.items():
            cost = min(tokens, window.most)  # more than the share is granted by an empty window
            if not window.take(cost, now):
                for other, back in taken:
                    other.correct(now, -back, now)
                wait_ns, empty_in_ns = window.leaves_in(window.used + cost - window.most, now)
                return Verdict(limit, wait_ns / 1e9, max(window.most - window.used, 0), -(-empty_in_ns // 1_000_000))
            taken.append((window, cost))
        self._open[who] += 1
        if (minute := windows.get(Limit.PER_MINUTE)) is None:
            return Verdict(Limit.NONE, at=now)
        return Verdict(Limit.NONE, 0.0, minute.most - minute.used, -((now - minute.leaves_at) // 1_000_000), now)

    def give_back(self, context: RequestContext, quota: Quota, tokens: int, used: int, at: int) -> None:
        """Frees the place, and puts what was used in the place of the tokens that were taken at `at`."""
        who, now = (context.tenant, context.key_name), monotonic_ns()
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]
        for window in self._of(context, quota).values():
            window.correct(at, used - min(tokens, window.most), now)

    def _of(self, context: RequestContext, quota: Quota) -> dict[Limit, Window]:
        """Of a day and a month, an hour's worth in an hour."""
        rates = [
            (Limit.PER_MINUTE, quota.tokens_per_minute, SECOND_NS),
            (Limit.PER_DAY, -(-quota.tokens_per_day // 24), _MINUTE_NS),
            (Limit.PER_MONTH, -(-quota.tokens_per_month // 720), _MINUTE_NS),
        ]
        return {
            limit: self._windows[context.tenant, context.key_name, limit, most, slot_ns]
            for limit, most, slot_ns in rates
            if most
        }
