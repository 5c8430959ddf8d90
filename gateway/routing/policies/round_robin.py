"""Round robin: each replica in turn, whatever its speed, its load and its weight."""

from collections import Counter
from collections.abc import Sequence

from gateway.context import RequestContext
from gateway.routing.policies.base import Prompt
from gateway.routing.standing import Standing


class RoundRobin:
    def __init__(self) -> None:
        self._turns: Counter[tuple[str, int]] = Counter()

    def order(
        self, standings: Sequence[Standing], context: RequestContext, prompt: Prompt, now: float
    ) -> Sequence[Standing]:
        some = standings[0].replica
        tier = some.model, some.priority
        turn = self._turns[tier] % len(standings)
        self._turns[tier] += 1
        return [*standings[turn:], *standings[:turn]]


POLICY = RoundRobin
