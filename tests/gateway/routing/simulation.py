"""Replicas on a simulated clock: each works on one request after the other, at its own speed."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.metrics import Metrics
from gateway.routing.attempt import Attempt
from gateway.routing.policies import balanced
from gateway.routing.pool import Pool
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.settings import Upstream

CALLER = RequestContext("r-1", tenant="team-a")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def chat(*texts: str) -> Call:
    return Call.of(Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]})


def upstreams(number: int, **fields: object) -> list[Replica]:
    made = (Upstream(model="m", url=f"http://127.0.0.1:{9000 + n}", **fields) for n in range(number))
    return [Replica.from_upstream(upstream, n) for n, upstream in enumerate(made)]


def pool(replicas: Sequence[Replica]) -> Pool:
    return Pool("m", frozenset({"chat"}), None, {"chat": sorted(replicas, key=lambda one: one.priority)})


def router(policy: str, clock: Clock, seed: int = 1) -> Router:
    """With the same random numbers each time."""
    made = Router(policy, {}, Metrics(), clock)
    made._policies["balanced"] = made._default if policy != "balanced" else balanced.Balanced(Random(seed))
    made._default = made._policies[policy]
    return made


@dataclass
class Simulation:
    """
    Attributes:
        service_s: of each replica, the seconds it takes for one request.
        answered: how many each has, by its place.
        waits: seconds from each request to its answer.
    """

    router: Router
    clock: Clock
    replicas: Sequence[Replica]
    service_s: list[float]
    answered: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pool = pool(self.replicas)
        self._free_at = [self.clock.now] * len(self.replicas)
        self._due: list[tuple[float, int, int, Attempt, float]] = []
        self._number = count()

    def ask(self, call: Call | None = None) -> int:
        """Sends a request now; returns to which replica."""
        replicas = self._pool.replicas["chat"]
        chosen = self.router.order(self._pool, replicas, CALLER, call or chat(str(next(self._number))))[0]
        place = list(self.replicas).index(chosen)
        attempt = self.router.begin(chosen)
        self._free_at[place] = max(self._free_at[place], self.clock.now) + self.service_s[place]
        heapq.heappush(self._due, (self._free_at[place], next(self._number), place, attempt, self.clock.now))
        return place

    def step(self) -> None:
        """Goes on to the next answer."""
        self.clock.now, _, place, attempt, since = heapq.heappop(self._due)
        attempt.first_token()
        attempt.ended(1)
        self.answered[place] += 1
        self.waits.append(self.clock.now - since)

    def until(self, time: float) -> None:
        """Goes on to a time."""
        while self._due and self._due[0][0] <= time:
            self.step()
        self.clock.now = time

    def keep_busy(self, requests: int, answers: int) -> None:
        """So many requests are open at any time, until so many have been answered."""
        for _ in range(requests):
            self.ask()
        for _ in range(answers):
            self.step()
            self.ask()

    def arrivals(self, per_s: float, number: int, random: Random) -> None:
        """Requests come by chance, whether those before them are answered or not."""
        for _ in range(number):
            self.until(self.clock.now + random.expovariate(per_s))
            self.ask()
        while self._due:
            self.step()
