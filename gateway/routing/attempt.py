"""One request at one replica: in flight from its beginning until it is told, once, how it went."""

from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.routing.breaker import at_fault
from gateway.routing.standing import Standing

# Whole answers that end sooner than that after the last measured one are not measured: an average of this second's
# answers loses nothing by it, and a replica that gives thousands of them a second costs less.
_NEW_S = 0.01


class Attempt:
    """Whoever begins one ends it with `ended`, `failed` or `abandoned`; the first of them counts, others do nothing."""

    __slots__ = ("_at", "_clock", "_era", "_first_at", "_over", "_probe", "_requests", "_standing")

    def __init__(self, standing: Standing, clock: Callable[[], float]) -> None:
        now = clock()
        breaker = standing.breaker
        standing.in_flight += 1
        self._standing = standing
        self._clock = clock
        self._at = now
        self._first_at: float | None = None
        self._requests = standing.load
        self._era = breaker.era
        self._probe = not breaker.closed and breaker.probe(now)
        self._over = False

    def measures(self) -> bool:
        """Whether the number of a whole answer's tokens is of any use."""
        return self._clock() - self._standing.measured_at >= _NEW_S

    def first_token(self) -> None:
        """The first event of a stream is there. A whole answer has none: it only ends."""
        if self._over or self._first_at is not None:
            return
        now = self._first_at = self._clock()
        standing = self._standing
        standing.first_token_took(now - self._at, self._mean_requests(), now)
        standing.breaker.answered(self._era, now)

    def ended(self, tokens: int | None) -> None:
        """The answer came to its end.

        Args:
            tokens: how many it had; 0 where it is none of tokens, such as an embedding; None where nobody has counted.
        """
        if self._over:
            return
        now = self._clock()
        if tokens is None:
            pass
        elif self._first_at is None:
            self._whole(now, tokens)
        elif tokens > 1:
            self._standing.tokens_took((now - self._first_at) / (tokens - 1), self._mean_requests(), now)
        self._standing.breaker.ended(self._era, now)
        self._leave()

    def failed(self, error: GatewayError) -> None:
        """It went wrong, for whatever reason; the breaker counts what is the replica's fault.

        A deadline that the client has made shorter than the model's is not: `abandoned` is the word for that.
        """
        if not at_fault(error):
            self.abandoned()
        elif not self._over:
            self._standing.breaker.failed(error, self._era, self._clock(), probe=self._probe)
            self._leave()

    def abandoned(self) -> None:
        """Nobody wants the answer any more, which tells nothing of the replica."""
        if self._over:
            return
        if self._probe and self._era == self._standing.breaker.era:
            self._standing.breaker.release()
        self._leave()

    def _whole(self, now: float, tokens: int) -> None:
        """An answer that came at once: what is not its first token, as far as that is known, went into the others."""
        standing, seconds, requests = self._standing, now - self._at, self._mean_requests()
        if now - standing.measured_at < _NEW_S:
            return
        if tokens <= 1:
            standing.first_token_took(seconds, requests, now)
            return
        first = min(seconds / tokens if standing.ttft is None else standing.ttft, seconds)
        standing.first_token_took(first, requests, now)
        standing.tokens_took((seconds - first) / (tokens - 1), requests, now)

    def _mean_requests(self) -> float:
        """What the replica had to do in this time, about."""
        return (self._requests + self._standing.load) / 2

    def _leave(self) -> None:
        self._over = True
        self._standing.in_flight -= 1
