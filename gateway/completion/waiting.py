"""Requests in the order in which they get their turn.

Within a priority the first comes first. A batch request stands as if it had come `handicap_s` later: interactive ones
pass it at first, and none that comes after that time, so it is never passed for ever.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

from gateway.context import Priority
from gateway.errors import GatewayError


class Waiter:
    """One request that waits.

    Attributes:
        since: when it came, by the loop's clock.
        turn: done when its wait is over: with None when it may go on, else with why it may not.
    """

    __slots__ = ("priority", "since", "turn")

    def __init__(self, priority: Priority, since: float, turn: "asyncio.Future[GatewayError | None]") -> None:
        self.priority = priority
        self.since = since
        self.turn = turn


class Waiting:
    """
    Attributes:
        count: of the requests that wait.
    """

    def __init__(self, handicap_s: float) -> None:
        self.count = 0
        self._handicaps: dict[Priority, float] = {"interactive": 0.0, "batch": handicap_s}
        self._lines: dict[Priority, OrderedDict[Waiter, None]] = {name: OrderedDict() for name in self._handicaps}

    def add(self, waiter: Waiter) -> None:
        self._lines[waiter.priority][waiter] = None
        self.count += 1

    def discard(self, waiter: Waiter) -> None:
        """Takes it out, if it is there."""
        line = self._lines[waiter.priority]
        if waiter in line:
            del line[waiter]
            self.count -= 1

    def first(self) -> Waiter:
        """Whose turn it is; there has to be one."""
        return min(self._ends(last=False), key=self._rank)

    def last(self) -> Waiter:
        """Whose turn comes after all others'; there has to be one."""
        return max(self._ends(last=True), key=self._rank)

    def _ends(self, *, last: bool) -> Iterator[Waiter]:
        return (next(reversed(line) if last else iter(line)) for line in self._lines.values() if line)

    def _rank(self, waiter: Waiter) -> float:
        return waiter.since + self._handicaps[waiter.priority]
