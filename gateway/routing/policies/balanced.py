"""Balanced: of two replicas by chance the one that is expected to answer sooner; a fast one gets more, a slow one less.

Two and not all, since each worker knows of the others' requests a little late: if all took the best, it would be the
worst by the time that they hear of it. A replica that was never measured is expected to answer at once until one
request is there, and one that was slow is expected to get better with the time that nobody asks it.
Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001)
"""

from collections.abc import Sequence
from random import Random

from gateway.context import RequestContext
from gateway.routing.policies.base import Prompt
from gateway.routing.standing import Standing


class Balanced:
    def __init__(self, random: Random | None = None) -> None:
        self._random = (random or Random()).random  # noqa: S311  # it spreads, and hides nothing

    def order(
        self, standings: Sequence[Standing], context: RequestContext, prompt: Prompt, now: float
    ) -> Sequence[Standing]:
        count = len(standings)
        first, second = int(self._random() * count), int(self._random() * (count - 1))
        second += second >= first
        one, other = standings[first], standings[second]
        if other.hoped_wait(now) < one.hoped_wait(now):
            one, other = other, one
        return [one, other, *(rest for rest in standings if rest is not one and rest is not other)]


POLICY = Balanced
