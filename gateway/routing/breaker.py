"""A replica's breaker: closed while it does its work, open while it does not, half-open for the one request that tells.

    closed     --failures-->          open, for a second; twice as long each time it did not hold
    open       --its time is over-->  half-open: one request, the probe, is sent there
    half-open  --the probe succeeds--> closed        --it fails--> open again

Only what was sent after a breaker's last change counts: a stream that broke with the replica says nothing of the time
after. Times are seconds of one monotonic clock, which the caller reads.
"""

from collections.abc import Callable
from enum import Enum
from random import Random

from gateway.errors import DeadlineExceeded, GatewayError, ReplicaUnreachable, UpstreamFailed

FAILURES = 3
# Failures further apart than this have nothing to do with each other.
MEMORY_S = 30.0
OPEN_S = 1.0
# Doubled so often at most: a replica that is well again must not wait long, and one that is not costs a second try.
MAX_LEVEL = 3
MAX_OPEN_S = OPEN_S * 2**MAX_LEVEL * 1.25
# A breaker that opens again within this time opens for longer.
STABLE_S = 30.0
# How long word of another gateway is doubted after an answer that this one got itself.
OWN_EVIDENCE_S = 1.0


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


def at_fault(error: GatewayError) -> bool:
    """Whether an error tells of the replica, and not of the request or of the gateway."""
    return isinstance(error, UpstreamFailed | DeadlineExceeded)


class Breaker:
    """
    Attributes:
        changed: called after every change between closed and open.
        closed: nothing is known against the replica.
        until: when its time is over, while it is not closed.
        era: grows with every change.
        told: it is open by another gateway's word only.
    """

    def __init__(self, random: Random) -> None:
        self.closed = True
        self.until = self._over_at = 0.0
        self.era = 0
        self.told = False
        self.changed: Callable[[], None] = lambda: None
        self._random = random
        self._failures = 0
        self._failed_at = self._closed_at = self._well_at = float("-inf")
        self._level = -1
        self._probing = False

    def state(self, now: float) -> State:
        if self.closed:
            return State.CLOSED
        return State.OPEN if now < self.until else State.HALF_OPEN

    def due(self, now: float) -> bool:
        """Whether the next request is to be the probe."""
        return not (self.closed or self._probing) and now >= self.until

    def probe(self, now: float) -> bool:
        """A request is sent to the replica; returns whether it is the probe, and then holds its place."""
        if not self.due(now):
            return False
        self._probing = True
        return True

    def release(self) -> None:
        """The probe ended without telling anything."""
        self._probing = False

    def answered(self, era: int, now: float) -> None:
        """An answer began that was asked for in `era`."""
        self._well_at = now
        if not self.closed and era == self.era:
            self._close(now)

    def ended(self, era: int, now: float) -> None:
        """An answer came to its end."""
        self._failures = 0
        self.answered(era, now)

    def failed(self, error: GatewayError, era: int, now: float, *, probe: bool) -> None:
        """The replica failed at what it was asked in `era`."""
        if era != self.era:
            return
        if not self.closed:
            if probe:
                self._open_longer(now)
            return
        self._failures = 1 if now - self._failed_at > MEMORY_S else self._failures + 1
        self._failed_at = now
        # Nobody there is a fact; other failures may be the request's own.
        if isinstance(error, ReplicaUnreachable) or self._failures >= FAILURES:
            self.open(now)

    def open(self, now: float) -> None:
        """Opens it; for longer where the last time did not help."""
        if now - self._closed_at >= STABLE_S:
            self._level = -1
        self._open_longer(now)

    def hold(self, now: float, seconds: float) -> None:
        """The replica is away: no request is to find that out within `seconds`; with 0, it is there again."""
        if not self.closed and not self._probing:
            self.until = max(self._over_at, now + seconds)

    def told_open(self, seconds: float, now: float) -> None:
        """Another gateway has found the replica failing and leaves it out for `seconds` more."""
        if now - self._well_at < OWN_EVIDENCE_S:
            return
        until = now + min(seconds, MAX_OPEN_S)
        if self.closed:
            self.told = True
            self._open_until(until)
        elif self.told and not self._probing:
            self._over_at = max(self._over_at, until)
            self.until = max(self.until, until)

    def _open_longer(self, now: float) -> None:
        self._level = min(self._level + 1, MAX_LEVEL)
        self.told = False
        self._open_until(now + OPEN_S * 2**self._level * self._random.uniform(0.75, 1.25))

    def _open_until(self, until: float) -> None:
        self.closed, self._probing = False, False
        self.until = self._over_at = until
        self._failures = 0
        self.era += 1
        self.changed()

    def _close(self, now: float) -> None:
        self.closed, self._probing, self._closed_at = True, False, now
        self.told = False
        self._failures = 0
        self.era += 1
        self.changed()
