"""How often, and when, an engine is asked again: a budget per model, and the pauses that replicas have asked for.

What a replica that is gone leaves behind is a load that somebody has to take, so another one is asked at no charge. To
ask again after an answer that was none is load on top: with every request a model earns a part of such a try, so in an
outage there are at most a fifth more requests than without, and a few.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence

from gateway.errors import UpstreamBusy
from gateway.routing.replica import Replica
from gateway.upstream.timeouts import Timeouts

_EARNED_PER_REQUEST = 0.2
_MOST = 100.0
# What there is at first, and again after a while: a model that is seldom asked may be asked again too.
_FLOOR = 10.0
_FLOOR_PER_S = 1.0
_BACKOFF_S = (0.1, 0.4)


class Budget:
    """Tries that a worker may add to a model's requests."""

    __slots__ = ("_at", "_left")

    def __init__(self) -> None:
        self._left = _FLOOR
        self._at = 0.0

    def earn(self) -> None:
        if self._left < _MOST:
            self._left += _EARNED_PER_REQUEST

    def spend(self, now: float) -> bool:
        """Whether there is one; `now` in seconds."""
        if self._left < _FLOOR:
            self._left = min(_FLOOR, self._left + (now - self._at) * _FLOOR_PER_S)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Rules:
    """What holds for the requests of one model.

    Attributes:
        fallbacks: the models that stand in for it, in order.
    """

    __slots__ = ("budget", "fallbacks", "timeouts")

    def __init__(self, timeouts: Timeouts, fallbacks: Sequence[str]) -> None:
        self.timeouts = timeouts
        self.fallbacks = fallbacks
        self.budget = Budget()


class RuleBook:
    """The rules by model; of a model that is not named, the usual ones."""

    def __init__(
        self, usual: Timeouts, timeouts: Mapping[str, Timeouts], fallbacks: Mapping[str, Sequence[str]]
    ) -> None:
        self._usual = usual
        self._timeouts = timeouts
        self._fallbacks = fallbacks
        self._rules: dict[str, Rules] = {}

    def of(self, model: str) -> Rules:
        """`model` is one that exists: the book grows with those it was asked for."""
        rules = self._rules.get(model)
        if rules is None:
            timeouts, fallbacks = self._timeouts.get(model, self._usual), self._fallbacks.get(model, ())
            rules = self._rules[model] = Rules(timeouts, fallbacks)
        return rules


class Pauses:
    """Replicas that have said when they want to be asked again (`retry-after`)."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, UpstreamBusy]] = {}

    def note(self, replica: Replica, error: UpstreamBusy, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self._until = {id_: pause for id_, pause in self._until.items() if pause[0] > now}
        self._until[replica.id] = now + seconds, error

    def rested(self, replicas: Sequence[Replica]) -> Sequence[Replica]:
        """Those that may be asked now."""
        if not self._until:
            return replicas
        now = asyncio.get_running_loop().time()
        return [replica for replica in replicas if self._until.get(replica.id, (0.0,))[0] <= now]

    def first(self, replicas: Sequence[Replica]) -> tuple[float, UpstreamBusy] | None:
        """Seconds until the first of them may be asked, and what it said; None where none has asked for a pause."""
        now = asyncio.get_running_loop().time()
        pauses = [self._until[replica.id] for replica in replicas if replica.id in self._until]
        until, error = min(pauses, key=lambda pause: pause[0], default=(0.0, None))
        return (max(until - now, 0.0), error) if error is not None else None


def backoff_s(again: int) -> float | None:
    """How long to wait before a pool is asked for the `again`-th time, in seconds; None is not at all."""
    if again > len(_BACKOFF_S):
        return None
    return random.uniform(0.5, 1.0) * _BACKOFF_S[again - 1]  # noqa: S311  # no secret: so that not all come at once
