"""Round robin: each replica in turn, the others behind it in case it can't be reached."""

from collections import Counter
from collections.abc import Sequence

from gateway.routing.replica import Replica


class RoundRobin:
    """Orders the replicas of a pool for one request; the first is asked first."""

    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()

    def order(self, model: str, pool: Sequence[Replica]) -> Sequence[Replica]:
        if len(pool) == 1:
            return pool
        turn = self._turns[model] % len(pool)
        self._turns[model] += 1
        return [*pool[turn:], *pool[:turn]]
