"""Requests that a worker may let through for a moment without asking again: granted, and counted, in advance.

They hold for HELD_NS, and only within the second in which Redis has counted them: so a window sees them as it sees any
other request. What is left of them then is given back. An advance is as large as what came in that time lately, and at
most a small part of what the key has left (`requests.lua`): a key that asks now and then, or is near its limit, gets
none, and its requests are granted one by one.
"""

from time import monotonic_ns

from gateway.limits.told import Headers, told

HELD_NS = 50_000_000
# A key that asks faster and faster gets so many times what it took of the last.
_GROWTH = 4
# The last microseconds of a window's seconds, as `requests.lua` tells them: the 60 that are full.
_MINUTE_US = 60_000_000


class Advance:
    """One key's.

    Attributes:
        left: requests that may still be let through.
        second: of Redis' clock, in which they count.
        until: when they do not hold any more, by `monotonic_ns`.
    """

    __slots__ = (
        "_asked", "_due", "_limit", "_remaining", "_reset", "_room", "_taken", "_told", "left", "second", "until",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self._told = told(b"requests", limit)
        self._limit, self._remaining, self._reset = self._told.limit, self._told.remaining, self._told.reset(0)
        self.left = self.second = self.until = 0
        self._room = 0  # what the key had left beside them
        self._taken = 0  # requests since somebody asked for more
        self._asked = self._due = 0  # when that was the last time, and until when no answer means none yet

    def take(self) -> Headers | None:
        """What the answer to a request tells that is let through; None where Redis has to be asked."""
        self._taken += 1
        if not self.left or monotonic_ns() >= self.until:
            return None
        self.left -= 1
        return (self._limit, (self._remaining, b"%d" % (self._room + self.left)), self._reset)

    def wanted(self) -> tuple[int, int]:
        """How many more than the one in hand to ask for, and when; of who asks meanwhile only the first wants more."""
        now = monotonic_ns()
        if now < self._due:
            return 0, now
        taken, took_ns = self._taken - 1, max(now - self._asked, 1)
        self._taken, self._asked = 1, now
        wanted = min(taken * HELD_NS // took_ns, _GROWTH * taken)
        if wanted:
            self._due = now + HELD_NS
        return wanted, now

    def grant(self, asked: int, more: int, second: int, room: int, empty_in_us: int) -> None:
        """
        Args:
            asked: when; somebody else may have asked since.
            more: are granted.
            second: of Redis' clock, in which they count.
            room: what the key has left beside them.
            empty_in_us: until all that the key has used has left the window.
        """
        self.left, self.second, self._room = more, second, room
        self._reset = self._told.reset(-(-empty_in_us // 1000))
        self._due = 0
        # Since it was asked, for the answer may have taken its time.
        self.until = asked + min(HELD_NS, (empty_in_us - _MINUTE_US) * 1000)
