"""What a key has used lately, as one worker counts it: the twin of `window.lua`. Times are `monotonic_ns`."""

from collections.abc import Callable
from time import monotonic_ns
from typing import TypeVar

SLOTS = 61
SECOND_NS = 1_000_000_000

_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


class Window:
    """A worker's share of a limit: in the slot of time that runs and the 60 full ones before it, no more than `most`.

    A share of less than one is one, in slots that are longer by as much.

    Args:
        limit: for 60 slots, of all workers together.
        slot_ns: how long a slot is.

    Attributes:
        most: that may be used in it.
        used: in it, when it was last asked.
        ends, leaves_at: when its last slot ends, and when what was used in that leaves it.
    """

    __slots__ = ("_full", "_slot", "_slot_ns", "_slots", "ends", "leaves_at", "most", "used")

    def __init__(self, limit: int, workers: int, slot_ns: int = SECOND_NS) -> None:
        self.most = max(limit // workers, 1)
        self._slot_ns = max(slot_ns, slot_ns * workers // limit)
        self.used = self.ends = self.leaves_at = 0
        # Of the slot that runs only the sum is kept up: a request adds to one number.
        self._slot = 0
        self._full = 0  # used in the others together
        self._slots = [0] * SLOTS  # used in each of them, by its number modulo as many

    def take(self, amount: int, now: int) -> bool:
        """Uses so much, if it fits."""
        if now >= self.ends:
            self._come(now)
        used = self.used + amount
        if used > self.most:
            return False
        self.used = used
        return True

    def correct(self, at: int, more: int, now: int) -> None:
        """Adds to what was taken at `at`; less than nothing is given back, if it has not left the window."""
        if now >= self.ends:
            self._come(now)
        slot = at // self._slot_ns
        if self._slot - slot < SLOTS:
            self.used += more
            if slot != self._slot:
                self._full += more
                self._slots[slot % SLOTS] += more
        elif more > 0:
            self.used += more

    def leaves_in(self, over: int, now: int) -> tuple[int, int]:
        """Nanoseconds until `over` of what it holds has left it, and until all has."""
        self._slots[self._slot % SLOTS] = self.used - self._full
        enough = newest = self._slot
        for slot in range(self._slot - SLOTS + 1, self._slot + 1):
            if here := self._slots[slot % SLOTS]:
                enough, newest = slot if over > 0 else enough, slot
                over -= here
        return (enough + SLOTS) * self._slot_ns - now, (newest + SLOTS) * self._slot_ns - now

    def _come(self, now: int) -> None:
        """Moves on to the slot that runs: what is in the place of one was used 61 slots before."""
        slot, slots = now // self._slot_ns, self._slots
        slots[self._slot % SLOTS] = self.used - self._full
        for number in range(max(self._slot, slot - SLOTS) + 1, slot + 1):
            self.used -= slots[number % SLOTS]
            slots[number % SLOTS] = 0
        self._slot, self._full = slot, self.used
        self.ends, self.leaves_at = (slot + 1) * self._slot_ns, (slot + SLOTS) * self._slot_ns


class Windows(dict[_Key, _Kept]):
    """Makes the window of a key that has none, or what else is kept of one, and forgets what nobody asks for.

    Args:
        lasts_ns: how long one is kept that is not asked for; the longest of windows takes so long to empty.
    """

    def __init__(self, make: Callable[[_Key], _Kept], lasts_ns: int) -> None:
        super().__init__()
        self._make = make
        self._lasts_ns = lasts_ns
        self._older: dict[_Key, _Kept] = {}
        self._began = monotonic_ns()

    def __missing__(self, key: _Key) -> _Kept:
        if (now := monotonic_ns()) - self._began >= self._lasts_ns:
            # These were all asked for since then; what still is older was not.
            self._older, self._began = dict(self), now
            self.clear()
        window = self[key] = self._older.pop(key, None) or self._make(key)
        return window
