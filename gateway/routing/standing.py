"""What a worker knows of a replica: what it has sent there, how fast it was answered, whether it may be asked.

The model behind `wait`: with the next request a replica has n requests, and an answer takes n times what it takes of
its time. So each measured time is divided by the requests that the replica had in it, and a new one is expected to take
that share times the requests it has now. For a batching engine that is wrong far from the load it was measured under
and right near it, where it is used: samples follow the load within some requests. What is sent where the wait is
shortest evens the waits out, and then each replica has the share of the requests that it can carry.
"""

from math import exp2, inf
from zlib import crc32

from gateway.routing.breaker import Breaker
from gateway.routing.replica import Replica

# The length of answer that the speed of tokens counts for; the same for all, it cancels out among equals.
ANSWER_TOKENS = 128
# Of an average, the part that is its newest sample.
NEWEST = 0.15
# Nobody knows whether a replica that nobody has asked for a while is still as slow: what is expected of it halves.
HALF_LIFE_S = 15.0
# What a replica that was never measured and is being tried makes others wait for: it is tried by one at a time.
UNKNOWN_S = 3600.0
# From here on an engine may have to put requests back; as if they were twice as many.
KV_FULL = 0.9


class Standing:
    """
    Attributes:
        replica: as the directory last told of it.
        seed: of its place among others, for consistent hashing; the same in every worker.
        in_flight: requests of this worker that it has.
        ttft: seconds to its first token, an average; None when it was never measured.
        samples: how many times that was measured.
        measured_at: when its speed was measured last.
    """

    def __init__(self, replica: Replica, breaker: Breaker) -> None:
        self.replica = replica
        self.breaker = breaker
        self.weight = replica.weight
        self.seed = crc32(replica.id.encode())
        self.in_flight = 0
        self.samples = 0
        self.ttft: float | None = None
        self.measured_at = -inf
        self._others = replica.load.requests
        self._ttft_cost = self._cost = 0.0
        self._token_cost: float | None = None

    def see(self, replica: Replica) -> None:
        """Takes in what the directory tells now."""
        if replica.load.measured_at != self.replica.load.measured_at:
            # The reading counts this worker's own, which it knows better.
            self._others = max(0, replica.load.requests - self.in_flight)
        self.replica, self.weight = replica, replica.weight

    @property
    def load(self) -> int:
        """Requests it has: this worker's own as they are now, and those of others as they were last told."""
        return self.in_flight + self._others

    @property
    def full(self) -> bool:
        """It has as much as it works on at once, as far as this worker knows: one more would wait there."""
        most = self.replica.max_concurrency
        return most is not None and self.in_flight + self._others >= most

    def wait(self) -> float:
        """Seconds that an answer is expected to take from now on, by its weight."""
        if not self.samples:
            return UNKNOWN_S * self.in_flight
        requests = self.in_flight + self._others + 1
        if self.replica.load.kv_cache > KV_FULL:
            requests *= 2
        return self._cost * requests / self.weight

    def hoped_wait(self, now: float) -> float:
        """The same, if it has got faster since it was last measured."""
        wait = self.wait()
        if self.in_flight or not self.samples:
            return wait
        return wait * exp2((self.measured_at - now) / HALF_LIFE_S)

    @property
    def cost(self) -> float:
        """What one more request adds to the wait."""
        return self._cost / self.weight

    def first_token_took(self, seconds: float, requests: float, now: float) -> None:
        """A first token came `seconds` after its request; the replica had so many requests in that time."""
        self.samples += 1
        newest = max(NEWEST, 1 / self.samples)
        self.ttft = seconds if self.ttft is None else self.ttft + newest * (seconds - self.ttft)
        self._ttft_cost += newest * (seconds / requests - self._ttft_cost)
        self._note(now)

    def tokens_took(self, seconds: float, requests: float, now: float) -> None:
        """Each further token took `seconds`."""
        cost = seconds / requests
        self._token_cost = cost if self._token_cost is None else self._token_cost + NEWEST * (cost - self._token_cost)
        self._note(now)

    def forget_speed(self) -> None:
        """It is to be measured anew."""
        self.samples = 0
        self.ttft = self._token_cost = None
        self._ttft_cost = self._cost = 0.0

    def _note(self, now: float) -> None:
        self._cost = self._ttft_cost + ANSWER_TOKENS * (self._token_cost or 0.0)
        self.measured_at = now
