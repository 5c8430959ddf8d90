"""Round robin: each replica in turn, whatever its speed, its load and its weight."""

from collections import Counter
from collections.abc import Sequence

from gateway.context import RequestContext
from gateway.routing.policies.base import Prompt
from gateway.routing.standing import Standing


class RoundRobin:
    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()

    def order(
        self, standings: Sequence[Standing], context: RequestContext, prompt: Prompt, now: float
    ) -> Sequence[Standing]:
        model = standings[0].replica.model
        turn = self._turns[model] % len(standings)
        self._turns[model] += 1
        return [*standings[turn:], *standings[:turn]]


POLICY = RoundRobin
